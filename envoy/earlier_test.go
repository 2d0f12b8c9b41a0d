package envoy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// samples are Listeners of every kind that there is.
func samples() []edge.Listener {
	at, files := addr("0.0.0.0:8080"), &edge.TLS{Certificate: "/etc/tls/tls.crt", Key: "/etc/tls/tls.key"}
	return []edge.Listener{
		{Name: "plain", Address: at},
		{Name: "secure", Address: at, TLS: files},
		{Name: "six", Address: addr("[::]:443")},
		{Name: "old-websockets", Address: at, HTTP1WebSockets: true},
		{Name: "everything", Address: at, TLS: &edge.TLS{Certificate: "/c", Key: "/k", ClientCA: "/ca"}, TrustedHops: 2, ProxyProtocol: edge.Required,
			AccessLog: edge.AccessLog{File: "/dev/stdout"}, Tracing: &edge.Tracing{GRPC: addr("10.0.0.9:4317"), Sample: 100}},
		{Name: "other-log", Address: at, ProxyProtocol: edge.Optional, AccessLog: edge.AccessLog{GRPC: addr("10.0.0.9:9000")}},
		{Name: "raw", Address: at, Protocol: edge.TCP},
		{Name: "raw-secure", Address: at, Protocol: edge.TCP, TLS: files},
	}
}

// A Listener is written once, so its bytes stay what they are from one release to the next.
// Whoever changes them for new Envoys keeps the form before (see forms), with what it lacks:
// an Envoy that holds it keeps it. testdata/listeners.txt has every form that was ever
// published; -update adds what is new and rewrites nothing.
func TestListenersStayWhatTheyAre(t *testing.T) {
	const file = "testdata/listeners.txt"
	b, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	known := strings.Split(strings.TrimSpace(string(b)), "\n")
	var built []string
	for _, l := range samples() {
		now, was := listening(l), listening(l).Earlier
		var lines []string
		for _, m := range []proto.Message{now.Message, now.Instead} {
			if m == nil {
				continue
			}
			_, version, err := resource.New(l.Name, m).Encode()
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%s %s", l.Name, version))
		}
		current := len(lines)
		for version, lacks := range was {
			if lacks == "" {
				t.Errorf("%s: form %s lacks nothing", l.Name, version)
			}
			lines = append(lines, fmt.Sprintf("%s %s lacks %s", l.Name, version, lacks))
		}
		slices.Sort(lines[current:])
		built = append(built, lines...)
	}
	for _, line := range known {
		at := strings.Fields(line)
		published := strings.Join(at[:min(2, len(at))], " ")
		if !slices.ContainsFunc(built, func(b string) bool { return strings.HasPrefix(b, published) }) {
			t.Errorf("Envoys may hold %q, of which nothing is known any more; give forms what it lacks", line)
		}
	}
	for _, line := range built {
		at := strings.Fields(line)
		version := strings.Join(at[:2], " ")
		if !slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, version) }) {
			if !*update {
				t.Errorf("%q is new; add the form before it to forms, then go test ./envoy -update", line)
			}
			known = append(known, version)
		}
	}
	if *update {
		slices.Sort(known)
		if err := os.WriteFile(file, []byte(strings.TrimSpace(strings.Join(known, "\n"))+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
