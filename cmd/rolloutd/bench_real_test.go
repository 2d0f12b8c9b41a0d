//go:build real

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/control"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// benched is rolloutd within this process: what serve wires, with an ear where
// the acknowledgements arrive.
type benched struct {
	pub     *publisher
	control *control.Controller
	client  *api.Client
	xds     netip.AddrPort
	heard   chan struct{} // capacity 1, a level: a proxy acknowledged something
}

// startBenched runs a rolloutd whose configuration has these values and this rest
// until the benchmark ends.
func startBenched(b *testing.B, discovery, rest string) *benched {
	b.Helper()
	logger := slog.New(slog.NewTextHandler(b.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	path := filepath.Join(b.TempDir(), "sluice.yaml")
	text := fmt.Sprintf("discovery: %s\nstate: {file: state}\n%s", discovery, rest)
	must(b, os.WriteFile(path, []byte(text), 0o644))
	conf := got(config.Load(path))(b)
	store, closeStore, err := openStore(conf, newTokens(conf, logger))
	must(b, err)
	xdsListener, apiListener := got(net.Listen("tcp", "127.0.0.1:0"))(b), got(net.Listen("tcp", "127.0.0.1:0"))(b)

	p := &benched{pub: newPublisher(conf, logger), heard: make(chan struct{}, 1),
		xds: xdsListener.Addr().(*net.TCPAddr).AddrPort()}
	p.client = got(api.NewClient("http://"+apiListener.Addr().String(), ""))(b)
	orders := contract.NewClient("")
	carried := newLoads(p.pub)
	p.control = control.New(control.Ports{
		Store: store, Drain: orders, Publish: p.pub.Publish, Proxies: p.pub.Proxies, Loads: carried.Loads, Logger: logger,
	})
	p.control.Configure(services(conf))
	source := newSource(logger, func() string { return "" }, p.control.Discovered)

	ctx, stop := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.control.Run(ctx) })
	group.Go(func() error { return source.run(ctx, conf) })
	group.Go(func() error { return hear(ctx, p.pub, p.notice) })
	group.Go(func() error { return carried.run(ctx, p.control) })
	group.Go(func() error { return serveXDS(ctx, p.pub, xdsListener) })
	group.Go(func() error {
		return serveAPI(ctx, operator(func() string { return conf.API.Token }, p.control, p.pub, source, carried, &queries{conf: conf}), apiListener)
	})
	b.Cleanup(func() {
		stop()
		_ = group.Wait()
		orders.Close()
		closeStore()
	})
	return p
}

func (p *benched) notice(of ...discovery.Service) {
	p.control.NoticeOf(of...)
	select {
	case p.heard <- struct{}{}:
	default:
	}
}

// envoys starts n real Envoys and waits until each holds all there is for the services.
func (p *benched) envoys(b *testing.B, ctx context.Context, n int, names ...discovery.Service) {
	b.Helper()
	for i := range n {
		e, _, err := fleet.StartEnvoy(ctx, fleet.EnvoyOptions{Node: fmt.Sprint("edge-", i), XDS: p.xds, Dir: b.TempDir()})
		must(b, err)
		b.Cleanup(e.Kill)
	}
	p.await(b, ctx, "all Envoys", func() bool {
		return !slices.ContainsFunc(names, func(s discovery.Service) bool { return len(p.pub.Proxies(s)) != n || !p.confirmed(s) })
	})
}

// await returns when the acknowledgement came that made ok true.
func (p *benched) await(b *testing.B, ctx context.Context, what string, ok func() bool) time.Time {
	b.Helper()
	for !ok() {
		select {
		case <-p.heard:
		case <-ctx.Done():
			b.Fatalf("waiting for %s: %v", what, context.Cause(ctx))
		}
	}
	return time.Now()
}

// confirmed: every proxy holds what was published for the service last.
func (p *benched) confirmed(s discovery.Service) bool {
	return !slices.ContainsFunc(p.pub.Proxies(s), func(x observed.Proxy) bool { return !x.Confirmed })
}

// holds reports whether every proxy has acknowledged the endpoint of the
// instance, open or draining. What is published later says so too, so the newest
// wish is looked at before the acknowledgements are.
func (p *benched) holds(s discovery.Service, id discovery.InstanceID, draining bool) bool {
	p.pub.mu.Lock()
	endpoints := p.pub.good[s].Endpoints
	p.pub.mu.Unlock()
	for _, c := range discovery.Colours {
		if slices.ContainsFunc(endpoints[c], func(e desired.Endpoint) bool { return e.ID == id && e.Draining == draining }) {
			return p.confirmed(s)
		}
	}
	return false
}

// look waits for a view of the service that is as wanted.
func (p *benched) look(b *testing.B, ctx context.Context, s discovery.Service, what string, ok func(rollout.View) bool) rollout.View {
	b.Helper()
	for {
		views, newer := p.control.Views()
		if v, known := views[s]; known && ok(v) {
			return v
		}
		select {
		case <-newer:
		case <-ctx.Done():
			b.Fatalf("waiting for %s: %v; %s: %s", what, context.Cause(ctx), s, views[s].Reason.Text)
		}
	}
}

// gates starts n instances of which only the drain endpoint is real, each on a
// port of its own, and returns their addresses.
func gates(b *testing.B, n int) []netip.AddrPort {
	b.Helper()
	out := make([]netip.AddrPort, n)
	for i := range out {
		l := got(net.Listen("tcp", "127.0.0.1:0"))(b)
		server := &http.Server{Handler: drain.New(drain.Options{}).Endpoint(), ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = server.Serve(l) }()
		b.Cleanup(func() { _ = server.Close() })
		out[i] = l.Addr().(*net.TCPAddr).AddrPort()
	}
	return out
}

// percentiles reports p50 and p99 in milliseconds, and of how many.
func percentiles(b *testing.B, prefix string, samples []time.Duration) {
	slices.Sort(samples)
	at := func(p int) float64 { // the nearest rank
		return float64(samples[(len(samples)*p+99)/100-1].Microseconds()) / 1000
	}
	b.ReportMetric(at(50), prefix+"p50-ms")
	b.ReportMetric(at(99), prefix+"p99-ms")
	b.ReportMetric(float64(len(samples)), prefix+"samples")
	b.ReportMetric(0, "ns/op") // of all the samples: says nothing
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func got[T any](v T, err error) func(*testing.B) T {
	return func(b *testing.B) T {
		b.Helper()
		must(b, err)
		return v
	}
}
