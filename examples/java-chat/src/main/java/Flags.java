import java.net.InetSocketAddress;
import java.util.HashMap;
import java.util.Map;

/** The flags of examples/chat. */
record Flags(Map<String, String> all) {
    static Flags of(String[] args) {
        Map<String, String> all = new HashMap<>(Map.of("--name", "chat-b1", "--colour", "blue", "--version", "v1", "--listen", "127.0.0.1:9001", "--token", ""));
        for (int i = 0; i + 1 < args.length; i += 2) all.put(args[i], args[i + 1]);
        return new Flags(all);
    }

    String get(String name) {
        return all.get("--" + name);
    }

    InetSocketAddress address(String name) {
        String[] at = get(name).split(":");
        return new InetSocketAddress(at[0], Integer.parseInt(at[1]));
    }

    String hello() {
        return "{\"instance\":\"" + get("name") + "\",\"colour\":\"" + get("colour") + "\",\"version\":\"" + get("version") + "\"}";
    }
}
