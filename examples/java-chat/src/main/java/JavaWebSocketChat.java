import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import org.java_websocket.WebSocket;
import org.java_websocket.WebSocketImpl;
import org.java_websocket.drafts.Draft;
import org.java_websocket.exceptions.InvalidDataException;
import org.java_websocket.handshake.ClientHandshake;
import org.java_websocket.handshake.ServerHandshakeBuilder;
import org.java_websocket.server.WebSocketServer;
import sluice.drain.Gate;

/** A chat server with Java-WebSocket that takes part in rollouts. */
public final class JavaWebSocketChat extends WebSocketServer {
    private final Gate gate;
    private final Flags flags;

    private JavaWebSocketChat(Flags flags, Gate gate) {
        super(flags.address("listen"));
        this.flags = flags;
        this.gate = gate;
    }

    /** Refuses while draining. The library can only answer 404, which becomes the body of the 503 before it. */
    @Override
    public ServerHandshakeBuilder onWebsocketHandshakeReceivedAsServer(WebSocket ws, Draft draft, ClientHandshake request) throws InvalidDataException {
        if (gate.refuses(ws.getRemoteSocketAddress())) {
            ((WebSocketImpl) ws).outQueue.add(ByteBuffer.wrap(Gate.REFUSAL.getBytes(StandardCharsets.US_ASCII)));
            throw new InvalidDataException(1013, "draining");
        }
        return super.onWebsocketHandshakeReceivedAsServer(ws, draft, request);
    }

    @Override
    public void onOpen(WebSocket ws, ClientHandshake request) {
        Gate.Seat seat = gate.admit(ws.getRemoteSocketAddress(), () -> ws.close(Gate.GOODBYE, Gate.REASON));
        if (seat == null) { // an order came while hands were shaken
            ws.close(Gate.GOODBYE, Gate.REASON);
            return;
        }
        ws.setAttachment(seat);
        if (request.getResourceDescriptor().contains("returning=1")) seat.returned();
        ws.send(flags.hello());
    }

    @Override
    public void onClose(WebSocket ws, int code, String reason, boolean remote) {
        if (ws.getAttachment() instanceof Gate.Seat seat) seat.done();
    }

    @Override
    public void onMessage(WebSocket ws, String said) {
        if (said.startsWith("/all ")) broadcast(said.substring("/all ".length()));
        else ws.send(said);
    }

    @Override
    public void onError(WebSocket ws, Exception e) {}

    @Override
    public void onStart() {}

    public static void main(String[] args) throws Exception {
        Flags flags = Flags.of(args);
        Gate gate = new Gate(flags.get("token"), 0);
        JavaWebSocketChat server = new JavaWebSocketChat(flags, gate);
        server.setReuseAddr(true);
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
