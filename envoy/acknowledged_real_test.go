//go:build real

package envoy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
)

// TestRealAcknowledged: from the very moment on in which Envoy has acknowledged a
// switch no connection that is started reaches the old colour, whichever of its
// workers it comes to: HTTP (routes) and TCP (filter configuration), 400 switches
// under constant handshakes. Where a worker accepts all that wait at once, 1 TCP
// connection of 40,000 did.
func TestRealAcknowledged(t *testing.T) {
	web, raw := freeAddr(t), freeAddr(t)
	c := edge.Config{
		Listeners: []edge.Listener{{Name: "web", Address: web, AccessLog: edge.AccessLog{File: "/dev/null"}}, {Name: "raw", Address: raw, AccessLog: edge.AccessLog{File: "/dev/null"}}},
		Services:  []edge.Service{{Name: "chat", Listener: "web"}, {Name: "line", Listener: "raw", Protocol: edge.TCP}},
	}
	chats := map[discovery.Colour]netip.AddrPort{"blue": backend(t, "blue"), "green": backend(t, "green")}
	lines := map[discovery.Colour]netip.AddrPort{"blue": echo(t, "blue"), "green": echo(t, "green")}
	wishes := func(c discovery.Colour) desired.Wishes {
		ends := func(of map[discovery.Colour]netip.AddrPort) map[discovery.Colour][]desired.Endpoint {
			return map[discovery.Colour][]desired.Endpoint{"blue": serving(of["blue"]), "green": serving(of["green"])}
		}
		return desired.Wishes{"chat": to(c, ends(chats)), "line": to(c, ends(lines))}
	}
	w := start(t, c, wishes("blue"))

	const shakes = 80 // awaited after each acknowledgement
	// told is what Envoy was told last; nil from then on until it has acknowledged.
	var told atomic.Pointer[discovery.Colour]
	counted, strays := make(chan struct{}, 1000), atomic.Int64{}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	opens := func() (string, error) { return upgrade(web) }
	greets := func() (string, error) { return greeting(raw) }
	for _, shake := range []func() (string, error){opens, greets, greets, greets} {
		for range 2 {
			all.Go(func() {
				for ctx.Err() == nil {
					want := told.Load()
					got, err := shake()
					switch {
					case err != nil:
						t.Errorf("a handshake failed: %v", err)
						return
					case want == nil || told.Load() != want: // Envoy was told something else meanwhile
					case got != string(*want):
						strays.Add(1)
						t.Errorf("a connection that was started after %s was acknowledged reached %s", *want, got)
					default:
						select {
						case counted <- struct{}{}:
						default: // enough for this switch
						}
					}
				}
			})
		}
	}
	for i := range 400 {
		c := discovery.Colours[(i+1)%2]
		told.Store(nil)
		for len(counted) > 0 {
			<-counted
		}
		w.tellAndWait(t, wishes(c), RouteType, ExtensionType)
		told.Store(&c)
		for range shakes {
			select {
			case <-counted:
			case <-time.After(10 * time.Second):
				t.Fatal("no handshakes")
			}
		}
	}
	t.Logf("%d handshakes right after an acknowledgement, %d astray", 400*shakes, strays.Load())
}

// upgrade opens a WebSocket on a connection of its own and says which instance
// answered.
func upgrade(at netip.AddrPort) (string, error) {
	conn, in, err := dialed(at)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /chat/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", at); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return "", fmt.Errorf("status %s", res.Status)
	}
	return res.Header.Get("Instance"), nil
}

// greeting opens a TCP connection and says which instance answered.
func greeting(at netip.AddrPort) (string, error) {
	conn, in, err := dialed(at)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	name, err := in.ReadString('\n')
	return name[:max(0, len(name)-1)], err
}

// dialed is a connection that leaves no port behind when it is closed.
func dialed(at netip.AddrPort) (net.Conn, *bufio.Reader, error) {
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		return nil, nil, err
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn, bufio.NewReader(conn), nil
}
