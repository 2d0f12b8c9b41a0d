//go:build go1.26

package conform

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

const (
	endpoint = "http://instance:9100"
	front    = "ws://instance:9000/ws"
)

// verdicts runs a check and sorts the rules by what came of them.
func verdicts(t *testing.T, ctx context.Context, o Options) (by map[Verdict][]string, why map[string]string, err error) {
	by, why = map[Verdict][]string{}, map[string]string{}
	err = Run(ctx, o, func(r Result) {
		by[r.Verdict] = append(by[r.Verdict], r.Rule)
		why[r.Rule] = r.Why
		if (r.Verdict == Pass) != (r.Why == "") || (r.Verdict == Fail) != (r.Mend != "") {
			t.Errorf("%s is %s: %q; to mend it: %q", r.Rule, r.Verdict, r.Why, r.Mend)
		}
	})
	return by, why, err
}

// gated serves a gate at the endpoint, and WebSockets behind it.
func gated(t *testing.T, opt drain.Options) (*drain.Gate, network) {
	g, n := drain.New(opt), network{}
	n.serve(t, "instance:9100", g.Endpoint())
	n.serve(t, "instance:9000", g.Handler(http.HandlerFunc(listens)))
	return g, n
}

// listens takes a WebSocket over and reads it until its client has said goodbye.
func listens(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	_ = rw.Flush()
	for {
		if f, err := wsframe.Read(rw, 125); err != nil || f.Opcode == wsframe.Close {
			return
		}
	}
}

func TestOurGateKeepsEveryRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := gated(t, drain.Options{Token: "t", TicketKey: ticketKey})
		by, why, err := verdicts(t, t.Context(), Options{URL: endpoint, Token: "t", Connect: front, Dial: n.dial})
		if err != nil || len(by[Pass]) != len(Rules()) {
			t.Errorf("%v, failed %v, not checked %v: %v", err, by[Fail], by[NotChecked], why)
		}
		time.Sleep(2 * time.Second) // the last goodbyes
		if s := g.Status(); s.State != contract.Serving || s.Active != 0 {
			t.Errorf("left as %+v", s)
		}
	})
}

func TestOurListenerKeepsEveryRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := drain.New(drain.Options{}), network{}
		n.serve(t, "instance:9100", g.Endpoint())
		raw := n.listen("instance:9000")
		gated := g.Listener(raw)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := gated.Accept()
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(io.Discard, c)
					_ = c.Close()
				}()
			}
		}()
		by, why, err := verdicts(t, t.Context(), Options{URL: endpoint + "/drain", Connect: "tcp://instance:9000", Dial: n.dial})
		if err != nil || len(by[Fail]) > 0 || !slices.Equal(by[NotChecked], []string{"guard"}) {
			t.Errorf("%v, failed %v, not checked %v: %v", err, by[Fail], by[NotChecked], why)
		}
		_ = raw.Close()
		<-done
		time.Sleep(2 * time.Second)
	})
}

// Each fault is named by the one rule that it breaks.
func TestEveryFaultIsNamed(t *testing.T) {
	faults := []string{
		"status: no limit", "status: active is text", "status: no such state", "status: boot is a page", "status: peers by name",
		"guard: nobody asks", "guard: open to read",
		"accept: the end counts as evicted", "accept: the end is not seen",
		"returned: everybody",
		"order: step not shown", "order: ceiling not shown",
		"repeat: refused",
		"stale-order: answered 200", "stale-order: older steps are taken",
		"release: not twice",
		"stale-release: answered 200", "stale-release: obeyed",
		"boot: of each answer", "boot: none when it drains",
		"late-order: obeyed",
		"malformed: ignored",
		"wrong-type: ignored",
		"out-of-range: negative ceiling", "out-of-range: start after days",
		"method: POST is PUT",
		"oversized: no limit",
		"serve-again: never",
		"refuse: nobody", "refuse: 404", "refuse: no Retry-After", "refuse: counted",
		"peers: hold more than is active", "peers: each connection is one", "peers: refused not counted",
		"hold: null is 0",
		"ceiling: one too many",
		"pace: all at once", "pace: in pairs", "pace: one at the very end", "pace: no start_ms", "pace: too fast",
		"goodbye: 1001", "goodbye: none",
		"evicted: not counted",
		"drained: never", "drained: lingers for ever",
		"natural: closed in addition",
		"repeat-running: starts again",
		"stop: null is nothing",
		"replace: first come",
		"release-running: goes on",
	}
	tried := map[string]bool{"": true}
	for _, fault := range append(faults, "") {
		rule, _, _ := strings.Cut(fault, ":")
		tried[rule] = true
		t.Run(fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, n := &lame{fault: fault, token: "t", held: map[net.Conn]bool{}}, network{}
				n.serve(t, "instance:9100", l)
				n.serve(t, "instance:9000", l)
				by, why, err := verdicts(t, t.Context(), Options{URL: endpoint, Token: "t", Connect: front, Dial: n.dial})
				var want []string
				if rule != "" {
					want = []string{rule}
				}
				if !slices.Equal(by[Fail], want) {
					t.Errorf("failed %v, want %v: %v", by[Fail], want, why)
				}
				if rule == "" && len(by[NotChecked]) > 0 {
					t.Errorf("not checked: %v", by[NotChecked])
				}
				if unanswerable := rule == "status"; (err != nil) != unanswerable {
					t.Errorf("error %v", err)
				}
				t.Logf("%s", why[rule])
			})
		})
	}
	for _, r := range Rules() {
		if !tried[r.Name] && r.Of == "" {
			t.Errorf("no fault breaks the rule %s", r.Name)
		}
	}
}

// A 0 may be true, or be said by an application that never says of a client that it
// returns: it is named.
func TestNobodyEverReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, n := gated(t, drain.Options{CountsReturns: true})
		by, why, err := verdicts(t, t.Context(), Options{URL: endpoint, Connect: front, Dial: n.dial})
		if err != nil || len(by[Fail]) > 0 || !strings.Contains(why["returned"], "returned is 0 after 8 connections") {
			t.Errorf("%v %v %v", err, by, why)
		}
		time.Sleep(2 * time.Second) // the last goodbyes
	})
}

func TestWithoutABootItIsNotChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := &lame{fault: "boot: not said", held: map[net.Conn]bool{}}, network{}
		n.serve(t, "instance:9100", l)
		by, why, err := verdicts(t, t.Context(), Options{URL: endpoint, Dial: n.dial})
		if err != nil || len(by[Fail]) > 0 || why["boot"] == "" {
			t.Errorf("%v %v %v", err, by, why)
		}
	})
}

func TestWithoutPeersTheyAreNotChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := &lame{fault: "peers: not said", held: map[net.Conn]bool{}}, network{}
		n.serve(t, "instance:9100", l)
		n.serve(t, "instance:9000", l)
		by, why, err := verdicts(t, t.Context(), Options{URL: endpoint, Connect: front, Dial: n.dial})
		if err != nil || len(by[Fail]) > 0 || why["peers"] == "" {
			t.Errorf("%v %v %v", err, by, why)
		}
	})
}

func TestWithoutConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, n := gated(t, drain.Options{})
		by, _, err := verdicts(t, t.Context(), Options{URL: endpoint, Dial: n.dial})
		if err != nil || len(by[Fail]) > 0 || len(by[Pass]) != 15 {
			t.Errorf("%v %v", err, by)
		}
	})
}

func TestAnInstanceAtWorkIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := gated(t, drain.Options{})
		gone := 0
		for range 3 {
			if _, err := g.Admit(func() { gone++ }); err != nil {
				t.Fatal(err)
			}
		}
		o := Options{URL: endpoint, Connect: front, Dial: n.dial}
		if _, _, err := verdicts(t, t.Context(), o); err == nil || !strings.Contains(err.Error(), "it holds 3 connections") {
			t.Errorf("with clients: %v", err)
		}
		client := contract.NewClient("")
		client.Dial = n.dial
		defer client.Close()
		if _, err := client.Order(t.Context(), endpoint, contract.Order{Rollout: "r1", Epoch: 7, Step: 3}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := verdicts(t, t.Context(), o); err == nil || !strings.Contains(err.Error(), `rollout "r1"`) {
			t.Errorf("draining: %v", err)
		}
		if s := g.Status(); s.Epoch != 7 || s.State != contract.Draining {
			t.Errorf("it was touched: %+v", s)
		}
		o.Force = true
		by, why, err := verdicts(t, t.Context(), o)
		if err != nil || len(by[Fail]) > 0 || len(by[Pass]) != 15 || !strings.Contains(why["pace"], "3 connections that are not of this check") {
			t.Errorf("by force: %v %v %v", err, by, why)
		}
		if s := g.Status(); s.State != contract.Serving || s.Active != 3 || gone != 0 {
			t.Errorf("by force it left %+v, %d gone", s, gone)
		}
	})
}

// Whoever stops a check in the middle finds a serving instance.
func TestItServesAfterAnInterruption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := gated(t, drain.Options{})
		ctx, cancel := context.WithTimeoutCause(t.Context(), 4*time.Second, errors.New("enough"))
		defer cancel()
		_, _, err := verdicts(t, ctx, Options{URL: endpoint, Connect: front, Dial: n.dial})
		if err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("it ended with %v", err)
		}
		time.Sleep(2 * time.Second)
		if s := g.Status(); s.State != contract.Serving || s.Active != 0 || s.Evicted == 0 {
			t.Errorf("left as %+v", s)
		}
	})
}

func TestWhatCannotBeChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"no endpoint":       {URL: "127.0.0.1:9100"},
		"another protocol":  {URL: "ws://127.0.0.1:9100"},
		"no connect scheme": {URL: endpoint, Connect: "127.0.0.1:9000"},
		"no connect port":   {URL: endpoint, Connect: "ws://instance/ws"},
		"too few":           {URL: endpoint, Connections: 7},
		"nobody there":      {URL: endpoint, Dial: network{}.dial},
	} {
		if err := Run(t.Context(), o, func(r Result) { t.Errorf("%s: %+v", name, r) }); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}
