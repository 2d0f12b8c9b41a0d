//go:build real

package envoy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/test/fleet"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// world is a real Envoy that is told what Build says. The teller is
// go-control-plane's own, since this package must not know ours.
type world struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cache  cache.SnapshotCache
	server delta.Server
	turn   int
	config edge.Config
	told   []resource.Resource
	build  Builder
	// lesser: it is told what an Envoy without DoorType is.
	lesser bool
	envoy  *fleet.Process
	admin  netip.AddrPort
	// reports counts the load report streams that were asked for, all refused.
	reports atomic.Int64
	// nacks receives what Envoy refuses.
	nacks chan string
	// acked counts acknowledgements by type URL.
	acked chan string
}

func (w *world) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return w.server.DeltaStreamHandler(s, resourcev3.AnyType)
}

// What the delta server tells of its streams.
func (w *world) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }
func (w *world) OnDeltaStreamClosed(int64, *corev3.Node)                {}
func (w *world) OnStreamDeltaRequest(_ int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	if r.ErrorDetail != nil {
		w.nacks <- r.TypeUrl + ": " + r.ErrorDetail.Message
	} else if r.ResponseNonce != "" {
		w.acked <- r.TypeUrl
	}
	return nil
}
func (w *world) OnStreamDeltaResponse(int64, *discoveryv3.DeltaDiscoveryRequest, *discoveryv3.DeltaDiscoveryResponse) {
}

// start runs a control plane and an Envoy that serves every listener of c. At
// the end nothing may have been refused.
func start(t *testing.T, c edge.Config, w desired.Wishes) *world {
	t.Helper()
	return startAs(t, c, w, false)
}

// startAs is start for an Envoy that knows the one door of own filters, or not.
func startAs(t *testing.T, c edge.Config, w desired.Wishes, lesser bool) *world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := &world{lesser: lesser, cache: cache.NewSnapshotCache(false, cache.IDHash{}, nil), config: c, nacks: make(chan string, 100), acked: make(chan string, 1000)}
	out.server = delta.NewServer(t.Context(), out.cache, out)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		out.reports.Add(1)
		return status.Error(codes.Unimplemented, "no load reports here")
	}))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, out)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	out.tell(t, w)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var ready []netip.AddrPort
	for _, l := range c.Listeners {
		ready = append(ready, l.Address)
	}
	out.envoy, out.admin, err = fleet.StartEnvoy(ctx, fleet.EnvoyOptions{
		Node: "edge-1", XDS: l.Addr().(*net.TCPAddr).AddrPort(), Dir: t.TempDir(), Ready: ready,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		out.envoy.Kill()
		close(out.nacks)
		for n := range out.nacks {
			t.Errorf("Envoy refused %s", n)
		}
		if t.Failed() {
			t.Log(out.envoy.Log())
		}
	})
	return out
}

// tell publishes, after the guard has agreed.
func (w *world) tell(t *testing.T, wishes desired.Wishes) {
	t.Helper()
	rs, errs := w.build.Build(w.config, wishes)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if r := Safe(w.told, rs, May{Holds: func(string, netip.AddrPort) bool { return false }}); len(r) > 0 {
		t.Fatal(r)
	}
	byType := map[string][]types.Resource{}
	for _, r := range rs {
		if w.lesser && r.Instead != nil {
			r.Message = r.Instead
		}
		byType[r.Type] = append(byType[r.Type], r.Message)
	}
	w.turn++
	s, err := cache.NewSnapshot(fmt.Sprint(w.turn), byType)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cache.SetSnapshot(t.Context(), "edge-1", s); err != nil {
		t.Fatal(err)
	}
	w.told = rs
}

// tellAndWait returns when Envoy has acknowledged each of the types once more.
func (w *world) tellAndWait(t *testing.T, wishes desired.Wishes, kinds ...string) {
	t.Helper()
	for len(w.acked) > 0 {
		<-w.acked
	}
	w.tell(t, wishes)
	waiting := map[string]bool{}
	for _, k := range kinds {
		waiting[k] = true
	}
	for len(waiting) > 0 {
		select {
		case k := <-w.acked:
			delete(waiting, k)
		case <-time.After(10 * time.Second):
			t.Fatalf("Envoy did not acknowledge %v", waiting)
		}
	}
}

func freeAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	a, err := fleet.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return a
}
