//go:build real

package envoy

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/envoy/edge/edgetest"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// Whatever breaks no rule Envoy takes: hundreds of services at a time.
func TestRealRules(t *testing.T) {
	envoy, err := fleet.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r, refused := rand.New(rand.NewPCG(seed, 17)), 0
			var c edge.Config
			for range 200 {
				next := edgetest.Random(r, 2, 6, 4)
				for i := range next.Services {
					s, own := &next.Services[i], fmt.Sprintf("-%d", len(c.Services)+i)
					s.Name += discovery.Service(own)
					if strings.HasPrefix(s.Prefix, "/") && r.IntN(3) > 0 {
						s.Prefix = "/" + own + s.Prefix
					}
					if len(c.Listeners) > 0 && r.IntN(3) > 0 {
						s.Listener = c.Listeners[r.IntN(len(c.Listeners))].Name
					}
				}
				next.Listeners, next.Services = append(next.Listeners, c.Listeners...), append(next.Services, c.Services...)
				settled, faults := edge.Settle(next, c)
				c, refused = settled, refused+len(faults)
			}
			if refused < 100 || len(c.Services) < 100 {
				t.Fatalf("%d services, %d refused; too few are near the border", len(c.Services), refused)
			}
			rs, errs := Build(c, wishesFor(c))
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			t.Logf("%d listeners, %d services, %d refused", len(c.Listeners), len(c.Services), refused)
			b, err := protojson.Marshal(&bootstrapv3.Bootstrap{StaticResources: static(t, rs)})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "static.json")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "--service-node", "edge-1", "--service-cluster", "edges", "-c", file, "--log-level", "warning").CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s\n%+v", err, out, c)
			}
		})
	}
}

// A domain and a prefix that break no rule are ones that Envoy matches: a request
// for exactly that, with a port in its Host header, finds its service, which has
// no instance (503). What belongs to no service is 404.
func TestRealRoutesMatch(t *testing.T) {
	c := edge.Config{Listeners: []edge.Listener{{Name: "web", Address: freeAddr(t)}}}
	type ask struct{ host, path string }
	asks := map[discovery.Service]ask{}
	add := func(domain, prefix string, a ask) {
		s := edge.Service{Name: discovery.Service(fmt.Sprintf("s%d", len(c.Services))), Listener: "web", Domains: []string{domain}, Prefix: prefix}
		c.Services = append(c.Services, s)
		asks[s.Name] = a
	}
	for i, p := range []string{"/chat", "//chat", "/a//b", "/...", "/.well-known", "/a.", "/a..b", "/%2F", "/%2f", "/%c3%bc", "/%C3%BC", "/%25", "/%3F", "/%5C", "/~", "/a;b=c", "/:@", "/[a]", "/!$&'()*+,", "/-_"} {
		host := fmt.Sprintf("p%d.example", i)
		add(host, p, ask{host, p + "/x"})
	}
	for domain, host := range map[string]string{
		"Chat.Example.com": "chat.example.COM", "*.star.org": "a.b.star.org", "front.*": "front.org", "*tail": "x-tail", "head*": "head-x", "[::1]": "[::1]", "10.0.0.1": "10.0.0.1", "dot.org.": "dot.org", "late.org": "late.org.", "a_b": "a_b",
	} {
		add(domain, "", ask{host, "/"})
	}
	if faults := c.Check(); len(faults) > 0 {
		t.Fatal(faults)
	}
	w := desired.Wishes{}
	for _, s := range c.Services {
		w[s.Name] = wish(10_000, 0, nil, nil)
	}
	start(t, c, w)
	status := func(a ask) int {
		conn, err := net.DialTimeout("tcp", c.Listeners[0].Address.String(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		// As it is written: a client of Go's would tidy up.
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s:8080\r\n\r\n", a.path, a.host); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
		defer r.Body.Close()
		return r.StatusCode
	}
	for _, s := range c.Services {
		if got := status(asks[s.Name]); got != http.StatusServiceUnavailable {
			t.Errorf("domain %s, prefix %q: %+v is answered with %d", strings.Join(s.Domains, " "), s.Prefix, asks[s.Name], got)
		}
	}
	if got := status(ask{"p0.example", "/chatroom"}); got != http.StatusNotFound {
		t.Errorf("/chatroom is answered with %d", got)
	}
}
