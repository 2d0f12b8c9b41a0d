//go:build real

package rolloutd_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstats "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// sockets connects WebSockets to an address; end ends them all.
func (w *world) sockets(at netip.AddrPort, n int) (s *clients.Swarm, end func()) {
	w.t.Helper()
	s, err := clients.New(clients.Options{
		Clients: n, URLs: []string{"ws://" + at.String() + "/ws"}, Reconnect: clients.Reconnect{Base: 50 * time.Millisecond, Max: 500 * time.Millisecond},
	})
	w.must(err)
	return s, w.background(func(ctx context.Context) { _ = s.Run(ctx) })
}

// background runs until the test or end ends it.
func (w *world) background(run func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	var all sync.WaitGroup
	all.Go(func() { run(ctx) })
	end = func() { cancel(); all.Wait() }
	w.t.Cleanup(end)
	return end
}

func (w *world) colour(st api.Status, c discovery.Colour) api.Colour {
	return st.Colours[slices.Index(discovery.Colours[:], c)]
}

// counted waits until a colour holds n by the proxies' counters and, over its
// instances, by their load reports.
func (w *world) counted(s discovery.Service, c discovery.Colour, n int) api.Status {
	w.t.Helper()
	var st api.Status
	w.until(fmt.Sprintf("%s %s to hold %d", s, c, n), func() error {
		var err error
		if st, err = w.api.Service(w.ctx, s); err != nil {
			return err
		}
		col, sum := w.colour(st, c), 0
		for _, i := range st.Instances {
			if i.Colour == c && i.Reported != nil {
				sum += i.Reported.Held
			}
		}
		if col.Reported == nil || *col.Reported != n || sum != n {
			return fmt.Errorf("counters %v, load reports %d: %+v", col.Reported, sum, st.Instances)
		}
		return nil
	})
	return st
}

// TestRealLoads: what two Envoys carry is known by service, colour and instance;
// one that was killed is named and its last count stays.
func TestRealLoads(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 2, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	second := w.startEnvoy("edge-2", w.ctl.XDS)
	swarm, end := w.sockets(w.web, 100)
	lines := &callers{size: 50, dial: w.call, now: map[string]int{}}
	hangUp := w.background(lines.run)
	w.until("all to be connected", func() error {
		if now := swarm.Connected(); now.Colour["blue"] != 100 {
			return errors.New(now.String())
		}
		return lines.missing(discovery.Blue)
	})
	w.counted(chat, discovery.Blue, 100)
	// A plan asks the instances, which are idle.
	if _, err := w.api.Plan(w.ctx, chat, api.Promotion{Target: "green"}); err != nil {
		t.Fatal(err)
	}
	st := w.counted(chat, discovery.Blue, 100)
	for _, i := range st.Instances {
		// What came before an Envoy's first report is not among the accepted.
		if r := i.Reported; i.Colour == discovery.Blue && (r.Held != *i.Held || r.Accepted > uint64(r.Held) || r.Refused > 0 || len(r.Silent) > 0) {
			t.Errorf("%s holds %d, the proxies report %+v", i.ID, *i.Held, i.Reported)
		}
	}
	if w.colour(st, discovery.Green).Reported == nil || *w.colour(st, discovery.Green).Reported != 0 || len(w.colour(st, discovery.Green).Unreported) > 0 {
		t.Errorf("green was never used: %+v", w.colour(st, discovery.Green))
	}
	w.counted(line, discovery.Blue, 50)

	// What is DRAINING is reported as before.
	w.instances[chat][0].Health = discovery.Critical
	w.must(w.ctl.WriteInstances(w.instances))
	since := time.Now().Add(3 * time.Second)
	st = w.await(chat, "newer reports", func(st api.Status) bool {
		return st.Proxies.Confirmed == 2 && slices.ContainsFunc(st.Instances, func(i api.Instance) bool {
			return i.ID == "chat-b1" && i.Health == discovery.Critical && i.Reported.At.After(since)
		})
	})
	w.counted(chat, discovery.Blue, 100)

	// One is killed: its clients come back through the other, and its last count stays.
	held := w.onProxy(second, "chat-blue")
	if held == 0 || held == 100 {
		t.Fatalf("edge-2 had %d of 100", held)
	}
	second.Kill()
	w.counted(chat, discovery.Blue, 100+held)
	st = w.await(chat, "edge-2 to be missed", func(st api.Status) bool {
		return slices.Equal(w.colour(st, discovery.Blue).Unreported, []string{"edge-2"})
	})
	for _, i := range st.Instances {
		if i.Colour == discovery.Blue && !slices.Equal(i.Reported.Silent, []string{"edge-2"}) {
			t.Errorf("%s: silent are %v", i.ID, i.Reported.Silent)
		}
	}
	if out := w.ctlDo("status", "chat"); !strings.Contains(out, "no counters from edge-2") {
		t.Errorf("status says\n%s", out)
	}
	if out := w.ctlDo("proxies"); strings.Count(out, " silent\n") != 1 || strings.Count(out, " all\n") != 1 {
		t.Errorf("proxies says\n%s", out)
	}

	// A new process under its name begins anew.
	w.startEnvoy("edge-2", w.ctl.XDS)
	w.counted(chat, discovery.Blue, 100)
	w.await(chat, "nobody to be missed", func(st api.Status) bool { return len(w.colour(st, discovery.Blue).Unreported) == 0 })
	end()
	hangUp()
	w.counted(chat, discovery.Blue, 0)
	w.counted(line, discovery.Blue, 0)
}

// onProxy is how many requests one Envoy says on its own admin interface.
func (w *world) onProxy(e *realEnvoy, cluster string) (n int) {
	w.t.Helper()
	name := "cluster." + cluster + ".upstream_rq_active"
	_, err := fmt.Sscanf(w.page(e.admin, "/stats?usedonly&filter=^"+name+"$"), name+": %d", &n)
	w.must(err)
	return n
}

// TestRealRemoved: an instance without a drain endpoint leaves discovery while it
// holds connections: the counters know of them, and know when they have ended.
func TestRealRemoved(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	p, err := fleet.StartChat(w.ctx, fleet.ChatOptions{Bin: programs(t), Dir: w.dir, Name: "chat-b9", Colour: discovery.Blue, WithoutDrain: true})
	w.must(err)
	t.Cleanup(p.Kill)
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.instances[chat] = append(w.instances[chat], p.Instance)
	w.must(w.ctl.WriteInstances(w.instances))
	w.await(chat, "the new instance", func(st api.Status) bool {
		return w.colour(st, discovery.Blue).Healthy == 2 && st.Proxies.Confirmed == 1
	})
	swarm, end := w.sockets(w.web, 20)
	w.until("all to be connected", func() error {
		if now := swarm.Connected(); now.Colour["blue"] != 20 {
			return errors.New(now.String())
		}
		return nil
	})
	st := w.counted(chat, discovery.Blue, 20)
	at := slices.IndexFunc(st.Instances, func(i api.Instance) bool { return i.ID == "chat-b9" })
	// Each of Envoy's workers takes turns by itself, so it need not be exactly half.
	if i := st.Instances[at]; i.Held == nil || *i.Held < 8 || *i.Held > 12 || i.State != "" {
		t.Errorf("an instance without drain endpoint: %+v", i)
	}

	w.instances[chat] = w.instances[chat][:len(w.instances[chat])-1]
	w.must(w.ctl.WriteInstances(w.instances))
	w.await(chat, "it to have left", func(st api.Status) bool {
		return !slices.ContainsFunc(st.Instances, func(i api.Instance) bool { return i.ID == "chat-b9" && !i.Departed })
	})
	since := time.Now()
	for time.Since(since) < 4*time.Second {
		st, err := w.api.Service(w.ctx, chat)
		w.must(err)
		if col := w.colour(st, discovery.Blue); col.Reported == nil || *col.Reported != 20 {
			t.Fatalf("the counters say %v", col.Reported)
		}
	}
	end()
	w.counted(chat, discovery.Blue, 0)
}

// TestRealLiar: an LRS client with unknown clusters and counts that cannot be is
// named, and nothing else changes.
func TestRealLiar(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	_, _ = w.sockets(w.web, 10)
	w.counted(chat, discovery.Blue, 10)

	conn, err := grpc.NewClient(w.ctl.XDS.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	t.Cleanup(func() { conn.Close() })
	stream, err := loadstats.NewLoadReportingServiceClient(conn).StreamLoadStats(w.ctx)
	w.must(err)
	w.must(stream.Send(&loadstats.LoadStatsRequest{Node: &core.Node{Id: "liar"}}))
	minus := -5
	for _, cluster := range []string{"chat-blue", "mine", "line-green", strings.Repeat("x", 5000)} {
		for _, n := range []uint64{uint64(minus), 1 << 40} {
			w.must(stream.Send(&loadstats.LoadStatsRequest{ClusterStats: []*endpoint.ClusterStats{{
				ClusterName: cluster, UpstreamLocalityStats: []*endpoint.UpstreamLocalityStats{{UpstreamEndpointStats: []*endpoint.UpstreamEndpointStats{{
					Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
						Address: "127.0.0.1", PortSpecifier: &core.SocketAddress_PortValue{PortValue: 80},
					}}},
					TotalRequestsInProgress: n,
				}}}},
			}}}))
		}
	}
	w.until("the liar to be named", func() error {
		metrics := w.page(w.ctl.API, "/metrics")
		for _, want := range []string{`sluice_reports_refused_total{node="liar"} 6`, `sluice_reports_ignored{node="liar"} 1`} {
			if !strings.Contains(metrics, want+"\n") {
				return errors.New(want + " is missing")
			}
		}
		return nil
	})
	if log := w.ctl.Log(); !strings.Contains(log, "node=liar") || !strings.Contains(log, "cluster=mine") {
		t.Errorf("the log is\n%s", log)
	}
	st := w.counted(chat, discovery.Blue, 10)
	if col := w.colour(st, discovery.Blue); len(col.Unreported) > 0 {
		t.Errorf("%v are missed", col.Unreported)
	}
}
