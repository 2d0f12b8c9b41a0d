package sluice.drain;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Gate holds the connections of a server and lets them go at the pace that is ordered: Sluice's drain contract. All methods may
 * be called concurrently. It needs the JDK alone.
 */
public final class Gate implements AutoCloseable {
    /** Answers who is refused, before a handshake is answered; the connection is to be closed after it. */
    public static final String REFUSAL =
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nx-sluice-refused: draining\r\nConnection: close\r\n\r\n";

    /** The close code of the goodbye to a WebSocket, and its reason. */
    public static final int GOODBYE = 1012;
    public static final String REASON = "service restart";

    private static final long MOST = (1L << 53) - 1, DAY = 86_400_000;
    private static final int BODY = 65_536, PEERS = 256;
    private static final String OTHER = "other";
    private static final Set<String> WORDS = Set.of("rollout", "epoch", "step", "ceiling", "over_ms", "start_ms", "order");

    private final String boot = UUID.randomUUID().toString(), token;
    private final int limit;
    private final Set<Seat> held = new LinkedHashSet<>(), lingering = new HashSet<>();
    private final Map<String, Peer> peers = new LinkedHashMap<>(); // the one that was quiet for longest first
    private final ScheduledExecutorService clock = Executors.newSingleThreadScheduledExecutor(run -> {
        Thread t = new Thread(run, "sluice-drain");
        t.setDaemon(true);
        return t;
    });
    private long accepted, evicted, refused;
    private Long returned; // null until a client is said to return
    private Word word = new Word("", 0, -1, null, false); // the last one; a release comes after every step of its epoch
    private Object running; // the funnel that is; another object stops it
    private boolean ending;
    private HttpServer endpoint;

    private record Word(String rollout, long epoch, long step, Long ceiling, boolean ordered) {
        boolean newerThan(Word o) {
            return epoch > o.epoch || epoch == o.epoch && age() > o.age();
        }

        long age() {
            return ordered ? step : Long.MAX_VALUE;
        }
    }

    private static final class Peer {
        int held;
        long accepted, refused;
    }

    /** One connection that was admitted. */
    public final class Seat {
        private final Runnable leave;
        private final Peer peer;
        private boolean back, over;

        private Seat(Runnable leave, Peer peer) {
            this.leave = leave;
            this.peer = peer;
        }

        /** Says that it has ended, whoever ended it. */
        public void done() {
            synchronized (Gate.this) {
                if (over) return;
                over = true;
                peer.held--;
                held.remove(this);
                lingering.remove(this);
                Gate.this.notifyAll();
            }
        }

        /** Says that its client was connected to this service before. */
        public void returned() {
            synchronized (Gate.this) {
                if (back) return;
                back = true;
                returned = (returned == null ? 0 : returned) + 1;
            }
        }
    }

    /** Without a token the drain endpoint answers direct requests from this machine only. */
    public Gate() {
        this("", 0);
    }

    /** The token of the drain endpoint, and the most connections that are held, 0 for any number. */
    public Gate(String token, int limit) {
        this.token = token;
        this.limit = limit;
    }

    /** New connections are refused. */
    public synchronized boolean draining() {
        return word.ordered || ending;
    }

    /** What is held. */
    public synchronized int active() {
        return held.size();
    }

    /** Whether a connection from there would be refused now; it is counted as refused then. */
    public synchronized boolean refuses(SocketAddress remote) {
        if (!draining() && (limit == 0 || held.size() < limit)) return false;
        refused++;
        peer(remote).refused++;
        return true;
    }

    /**
     * Counts a connection in; null says: refuse it. The remote address is that of its TCP connection. When it is let go, leave is
     * called once, in a thread of the gate: it must say goodbye without waiting, and have the connection ended soon after.
     */
    public synchronized Seat admit(SocketAddress remote, Runnable leave) {
        if (refuses(remote)) return null;
        Peer peer = peer(remote);
        Seat seat = new Seat(leave, peer);
        accepted++;
        peer.accepted++;
        peer.held++;
        held.add(seat);
        return seat;
    }

    /** At most 256 machines are told apart: who is new takes the place of the one that holds nothing and was quiet for longest. */
    private Peer peer(SocketAddress remote) {
        InetAddress address = remote instanceof InetSocketAddress at ? at.getAddress() : null;
        String name = address == null ? OTHER : address.getHostAddress().replaceFirst("%.*", "");
        if (!peers.containsKey(name) && !name.equals(OTHER) && peers.size() >= PEERS) {
            Iterator<Map.Entry<String, Peer>> all = peers.entrySet().iterator();
            String quiet = null;
            while (quiet == null && all.hasNext()) {
                Map.Entry<String, Peer> one = all.next();
                if (one.getValue().held == 0 && !one.getKey().equals(OTHER)) quiet = one.getKey();
            }
            if (quiet == null) name = OTHER;
            else peers.remove(quiet);
        }
        Peer known = peers.remove(name);
        peers.put(name, known == null ? new Peer() : known);
        return peers.get(name);
    }

    /** The status, as the drain endpoint says it. */
    public synchronized String status() {
        String state = !draining() ? "serving" : held.isEmpty() && lingering.isEmpty() ? "drained" : "draining";
        StringBuilder by = new StringBuilder();
        peers.forEach((name, p) -> by.append(by.isEmpty() ? "" : ",").append(quoted(name))
                .append(":{\"held\":" + p.held + ",\"accepted\":" + p.accepted + ",\"refused\":" + p.refused + "}"));
        Long ceiling = ending && !word.ordered ? Long.valueOf(0) : word.ceiling;
        return "{\"state\":\"" + state + "\",\"boot\":\"" + boot + "\",\"active\":" + held.size() + ",\"requests\":0,\"lingering\":"
                + lingering.size() + ",\"accepted\":" + accepted + ",\"evicted\":" + evicted + ",\"refused\":" + refused + ",\"returned\":"
                + returned + ",\"limit\":" + limit + ",\"ceiling\":" + ceiling + ",\"rollout\":" + quoted(word.rollout) + ",\"epoch\":"
                + word.epoch + ",\"step\":" + Math.max(word.step, 0) + ",\"peers\":{" + by + "}}";
    }

    /** Carries out an order or a release: 200, or the HTTP status that says why not. */
    private synchronized int obey(boolean order, Map<String, Object> said) {
        if (said == null || !WORDS.containsAll(said.keySet())) return 400;
        Object rollout = said.get("rollout"), pick = said.getOrDefault("order", "random"), ceiling = said.get("ceiling");
        Long epoch = whole(said.get("epoch"), MOST), step = whole(said.getOrDefault("step", 0L), MOST);
        Long over = whole(said.getOrDefault("over_ms", 0L), DAY), start = whole(said.getOrDefault("start_ms", 0L), DAY);
        boolean broken = ceiling != null && whole(ceiling, MOST) == null || epoch == null || step == null || over == null || start == null;
        if (broken || !(rollout instanceof String name) || !(pick instanceof String)) return 400;
        Word next = order ? new Word(name, epoch, step, (Long) ceiling, true) : new Word(name, epoch, -1, null, false);
        if (!next.newerThan(word)) return word.newerThan(next) ? 409 : 200; // said again, it changes nothing
        word = next;
        running = null;
        if (order && ceiling != null) funnel((Long) ceiling, over, start, pick.equals("oldest"));
        if (!order && ending) ownPace();
        return 200;
    }

    private static Long whole(Object n, long most) {
        return n instanceof Long l && l >= 0 && l <= most ? l : null;
    }

    /** Lets all above the ceiling go, one every over/n milliseconds; what ends by itself counts. */
    private void funnel(long ceiling, long over, long start, boolean oldest) {
        Object mine = running = new Object();
        List<Seat> all = new ArrayList<>(held);
        if (all.size() <= ceiling) return;
        long distance = over * 1_000_000 / (all.size() - ceiling);
        next(mine, all, all.size() - 1, ceiling, System.nanoTime() + start * 1_000_000, distance, oldest);
    }

    private void next(Object mine, List<Seat> all, long level, long ceiling, long due, long distance, boolean oldest) {
        clock.schedule(() -> {
            synchronized (this) {
                if (running != mine) return; // there is a newer word
                while (held.size() > level && !all.isEmpty()) evict(pick(all, oldest));
                if (level <= ceiling) return;
                long late = System.nanoTime() - TimeUnit.MILLISECONDS.toNanos(20); // no burst after a standstill
                next(mine, all, level - 1, ceiling, Math.max(due - late, 0) + late + distance, distance, oldest);
            }
        }, Math.max(due - System.nanoTime(), 0), TimeUnit.NANOSECONDS);
    }

    private static Seat pick(List<Seat> all, boolean oldest) {
        if (oldest) return all.remove(0);
        int at = ThreadLocalRandom.current().nextInt(all.size());
        Seat seat = all.set(at, all.get(all.size() - 1));
        all.remove(all.size() - 1);
        return seat;
    }

    private void evict(Seat seat) {
        if (!held.remove(seat)) return;
        evicted++;
        lingering.add(seat);
        clock.execute(() -> {
            try {
                seat.leave.run();
            } catch (RuntimeException gone) {
                seat.done(); // its library says so
            }
        });
    }

    private void ownPace() {
        long distance = 10; // milliseconds: 100 a second
        funnel(0, held.size() * distance, ThreadLocalRandom.current().nextLong(distance), false);
    }

    /**
     * Refuses new connections and lets all go: as ordered, or 100 a second. Says whether none is left after the grace period. A
     * shutdown hook of the runtime is the place for it.
     */
    public synchronized boolean shutdown(Duration grace) throws InterruptedException {
        long end = System.nanoTime() + grace.toNanos();
        if (!ending) {
            ending = true;
            if (!word.ordered) ownPace();
        }
        while (!held.isEmpty() || !lingering.isEmpty()) {
            long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
            if (left <= 0) return false;
            wait(left);
        }
        return true;
    }

    /** Serves /drain at that address until close. */
    public synchronized void listen(InetSocketAddress at) throws IOException {
        endpoint = HttpServer.create(at, 0);
        endpoint.createContext("/", exchange -> {
            try (exchange) {
                answer(exchange);
            }
        });
        endpoint.start();
    }

    private void answer(HttpExchange x) throws IOException {
        int code = allowed(x);
        String method = x.getRequestMethod();
        if (code == 200 && !x.getRequestURI().getPath().equals("/drain")) code = 404;
        if (code == 200 && !Set.of("GET", "PUT", "DELETE").contains(method)) code = 405;
        if (code == 200 && !method.equals("GET")) {
            byte[] body = x.getRequestBody().readNBytes(BODY + 1);
            code = body.length > BODY ? 413 : obey(method.equals("PUT"), words(new String(body, StandardCharsets.UTF_8)));
        }
        byte[] out = (code == 200 ? status() : "{\"error\":\"" + WHY.get(code) + "\"}").getBytes(StandardCharsets.UTF_8);
        x.getResponseHeaders().set("Content-Type", "application/json");
        x.getResponseHeaders().set("Cache-Control", "no-store");
        x.getResponseHeaders().set("Connection", "close");
        x.sendResponseHeaders(code, out.length);
        x.getResponseBody().write(out);
    }

    private static final Map<Integer, String> WHY = Map.of(400, "this is no order or release", 401, "the bearer token is missing or wrong",
            403, "without a token the drain endpoint answers direct requests from this machine only", 404, "the drain endpoint is /drain",
            405, "use GET, PUT or DELETE", 409, "there was a newer word", 413, "the body is too large");

    private int allowed(HttpExchange x) {
        if (!token.isEmpty()) {
            byte[] shown = Objects.toString(x.getRequestHeaders().getFirst("Authorization"), "").getBytes(StandardCharsets.UTF_8);
            return MessageDigest.isEqual(shown, ("Bearer " + token).getBytes(StandardCharsets.UTF_8)) ? 200 : 401;
        }
        boolean forwarded = x.getRequestHeaders().keySet().stream().anyMatch(h -> h.equalsIgnoreCase("Forwarded") || h.toLowerCase().startsWith("x-forwarded-"));
        return x.getRemoteAddress().getAddress().isLoopbackAddress() && !forwarded ? 200 : 403;
    }

    @Override
    public synchronized void close() {
        if (endpoint != null) endpoint.stop(0);
        clock.shutdownNow();
    }

    private static final Pattern WORD = Pattern.compile(
            "\\s*\"([a-z_]+)\"\\s*:\\s*(?:\"((?:[^\"\\\\\\p{Cntrl}]|\\\\(?:[\"\\\\/bfnrt]|u[0-9a-fA-F]{4}))*+)\"|(-?(?:0|[1-9]\\d{0,17}))|(null))\\s*");

    /** The words of a JSON object whose values are texts, whole numbers or null, which all words of the contract are; null of others. */
    private static Map<String, Object> words(String json) {
        String text = json.strip();
        if (!text.startsWith("{") || !text.endsWith("}") || text.length() < 2) return null;
        Map<String, Object> out = new HashMap<>();
        Matcher m = WORD.matcher(text).region(1, text.length() - 1);
        for (int at = 1; ; at++) {
            if (!m.region(at, text.length() - 1).lookingAt()) return null;
            Object value = m.group(4) != null ? null : m.group(3) != null ? (Object) Long.valueOf(m.group(3)) : unescaped(text.substring(m.start(2), m.end(2)));
            out.put(m.group(1), value);
            at = m.end();
            if (at == text.length() - 1) return out;
            if (text.charAt(at) != ',') return null;
        }
    }

    private static String unescaped(String s) {
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < s.length(); i++) {
            char c = s.charAt(i);
            if (c != '\\') {
                out.append(c);
                continue;
            }
            c = s.charAt(++i);
            int plain = "bfnrt".indexOf(c);
            if (c == 'u') {
                out.append((char) Integer.parseInt(s.substring(i + 1, i + 5), 16));
                i += 4;
            } else {
                out.append(plain < 0 ? c : "\b\f\n\r\t".charAt(plain));
            }
        }
        return out.toString();
    }

    private static String quoted(String s) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : s.toCharArray()) {
            if (c == '"' || c == '\\') out.append('\\').append(c);
            else if (c < ' ' || Character.isSurrogate(c)) out.append(String.format("\\u%04x", (int) c));
            else out.append(c);
        }
        return out.append('"').toString();
    }
}
