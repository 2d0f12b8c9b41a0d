//go:build go1.26

package drain_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

func from(machine string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(machine), Port: 4711} }

// Who is connected is counted by machine, whichever way a connection comes in.
func TestPeersAreCountedByMachine(t *testing.T) {
	g := drain.New(drain.Options{Limit: 4})
	admit := func(remote net.Addr) *drain.Conn {
		c, err := g.AdmitFrom(remote, func() {})
		if err != nil {
			t.Helper()
			t.Error(err)
		}
		return c
	}
	first := admit(from("10.0.0.7"))
	admit(from("::ffff:10.0.0.7"))
	admit(from("2001:db8::7"))
	if _, err := g.Admit(func() {}); err != nil {
		t.Error(err)
	}
	if g.Refuses(from("10.0.0.8")) != drain.ErrFull {
		t.Error("a full gate refuses nobody")
	}
	first.Done()
	first.Done()
	g.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) // a short request from 192.0.2.1
	want := map[string]contract.Peer{
		"10.0.0.7": {Held: 1, Accepted: 2}, "2001:db8::7": {Held: 1, Accepted: 1}, "10.0.0.8": {Refused: 1},
		"192.0.2.1": {}, contract.OtherPeers: {Held: 1, Accepted: 1},
	}
	s := g.Status()
	if fmt.Sprint(s.Peers) != fmt.Sprint(want) || !s.PeersAgree() || s.Check() != nil {
		t.Errorf("%v, want %v (%v)", s.Peers, want, s.Check())
	}
}

// However many machines come, the status stays short, and tells those apart that hold
// something.
func TestPeersAreBounded(t *testing.T) {
	g := drain.New(drain.Options{})
	kept, _ := g.AdmitFrom(from("10.1.0.0"), func() {})
	for i := range 3 * contract.MaxPeers {
		c, _ := g.AdmitFrom(from(fmt.Sprintf("10.0.%d.%d", i/256, i%256)), func() {})
		c.Done()
	}
	s := g.Status()
	if len(s.Peers) != contract.MaxPeers || s.Peers["10.1.0.0"].Held != 1 || s.Peers["10.0.2.255"].Accepted != 1 {
		t.Errorf("%d peers, %v", len(s.Peers), s.Peers["10.1.0.0"])
	}
	for i := range contract.MaxPeers {
		_, _ = g.AdmitFrom(from(fmt.Sprintf("10.2.0.%d", i)), func() {})
	}
	if s = g.Status(); s.Peers[contract.OtherPeers].Held != 1 || len(s.Peers) != contract.MaxPeers+1 || !s.PeersAgree() || s.Check() != nil {
		t.Errorf("%d peers, the others %+v (%v)", len(s.Peers), s.Peers[contract.OtherPeers], s.Check())
	}
	kept.Done()
	shut, cancel := context.WithCancel(t.Context())
	cancel()
	_ = g.Shutdown(shut)
	if err := g.Refuses(from("10.3.0.1")); err != drain.ErrDraining || g.Status().Peers["10.3.0.1"].Refused != 1 {
		t.Errorf("%v, %v", err, g.Status().Peers["10.3.0.1"])
	}
}
