import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.server.Handler;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.BufferUtil;
import org.eclipse.jetty.websocket.api.Session;
import org.eclipse.jetty.websocket.server.WebSocketUpgradeHandler;
import sluice.drain.Gate;

/** A chat server with Jetty that takes part in rollouts. */
public final class JettyChat implements Session.Listener.AutoDemanding {
    private final Gate gate;
    private final Flags flags;
    private final boolean returning;
    private Session session;
    private Gate.Seat seat;

    private JettyChat(Gate gate, Flags flags, boolean returning) {
        this.gate = gate;
        this.flags = flags;
        this.returning = returning;
    }

    @Override
    public void onWebSocketOpen(Session session) {
        this.session = session;
        seat = gate.admit(session.getRemoteSocketAddress(), () -> session.close(Gate.GOODBYE, Gate.REASON, org.eclipse.jetty.websocket.api.Callback.NOOP));
        if (seat == null) { // an order came while hands were shaken
            session.close(Gate.GOODBYE, Gate.REASON, org.eclipse.jetty.websocket.api.Callback.NOOP);
            return;
        }
        if (returning) seat.returned();
        session.sendText(flags.hello(), org.eclipse.jetty.websocket.api.Callback.NOOP);
    }

    @Override
    public void onWebSocketText(String said) {
        session.sendText(said, org.eclipse.jetty.websocket.api.Callback.NOOP);
    }

    @Override
    public void onWebSocketClose(int code, String reason, org.eclipse.jetty.websocket.api.Callback callback) {
        if (seat != null) seat.done();
        callback.succeed();
    }

    /** Refuses while draining, before Jetty answers a handshake; and says who it is, where there is none. */
    private static final class Front extends Handler.Wrapper {
        private final Gate gate;
        private final Flags flags;

        Front(Gate gate, Flags flags, Handler next) {
            super(next);
            this.gate = gate;
            this.flags = flags;
        }

        @Override
        public boolean handle(Request request, Response response, Callback callback) throws Exception {
            if (gate.refuses(request.getConnectionMetaData().getRemoteSocketAddress())) {
                response.setStatus(503);
                response.getHeaders().put(HttpHeader.RETRY_AFTER, "1").put("x-sluice-refused", "draining").put(HttpHeader.CONNECTION, "close");
                callback.succeeded();
                return true;
            }
            if (super.handle(request, response, callback)) return true;
            response.getHeaders().put("X-Colour", flags.get("colour"));
            response.write(true, BufferUtil.toBuffer(flags.get("name") + "\n", StandardCharsets.UTF_8), callback);
            return true;
        }
    }

    public static void main(String[] args) throws Exception {
        Flags flags = Flags.of(args);
        Gate gate = new Gate(flags.get("token"), 0);
        Server server = new Server();
        ServerConnector web = new ServerConnector(server);
        web.setHost(flags.address("listen").getHostString());
        web.setPort(flags.address("listen").getPort());
        server.addConnector(web);
        server.setHandler(new Front(gate, flags, WebSocketUpgradeHandler.from(server, sockets -> sockets.addMapping("/ws", (request, response, callback) ->
                new JettyChat(gate, flags, "returning=1".equals(request.getHttpURI().getQuery()))))));
        server.start();
        gate.listen(flags.address("drain"));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                Runtime.getRuntime().halt(gate.shutdown(Duration.ofMinutes(1)) ? 0 : 1);
            } catch (InterruptedException e) {
                Runtime.getRuntime().halt(1);
            }
        }));
    }
}
