package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/control"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/policy"
	storefile "github.com/sluice-proxy/sluice/rollout/store/file"
)

// manyServices is how many services the benchmarks have, each with two instances and a
// domain of its own on one listener.
const manyServices = 1500

// many is the way from discovery to the xDS server with many services and their states
// in a folder.
type many struct {
	b       *testing.B
	control *control.Controller
	world   discovery.Snapshot
	port    uint16
	wanted  atomic.Int64 // how many services shall have published the port
	reached chan struct{}
}

func newMany(b *testing.B) *many {
	m := &many{b: b, world: discovery.Snapshot{}, port: 80, reached: make(chan struct{}, 1)}
	listen := netip.MustParseAddrPort("127.0.0.1:8080")
	c := &config.Config{Listeners: []edge.Listener{{Name: "web", Address: listen}}}
	configured := map[discovery.Service]control.Service{}
	for i := range manyServices {
		name := discovery.Service(fmt.Sprintf("s%d", i))
		c.Services = append(c.Services, config.Service{Service: edge.Service{Name: name, Listener: "web", Domains: []string{string(name) + ".example.com"}}})
		configured[name] = control.Service{Live: discovery.Blue, Policy: policy.Default()}
		m.world[name] = m.fleet()
	}
	store, err := storefile.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	pub := newPublisher(c, slog.New(slog.DiscardHandler))
	client := contract.NewClient("")
	m.control = control.New(control.Ports{
		Store: store, Drain: client, Proxies: pub.Proxies, Logger: slog.New(slog.DiscardHandler),
		Publish: func(w desired.Wishes) map[discovery.Service]string {
			refused := pub.Publish(w)
			m.look(w)
			return refused
		},
	})
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.control.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		client.Close()
	})
	m.await(manyServices, func() {
		m.control.Configure(configured)
		m.control.Discovered(maps.Clone(m.world))
	})
	return m
}

// fleet has an instance of each colour, blue's at the newest port.
func (m *many) fleet() discovery.Fleet {
	return discovery.Fleet{Instances: []discovery.Instance{
		{ID: discovery.InstanceID(fmt.Sprintf("b%d", m.port)), Colour: discovery.Blue, Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), m.port), Health: discovery.Passing},
		{ID: "g1", Colour: discovery.Green, Addr: netip.MustParseAddrPort("10.0.0.2:80"), Health: discovery.Passing},
	}}
}

// look sees whether as many services as wanted are published with the newest port.
func (m *many) look(w desired.Wishes) {
	wanted := m.wanted.Load()
	for _, wish := range w {
		if slices.ContainsFunc(wish.Endpoints[discovery.Blue], func(e desired.Endpoint) bool { return e.Addr.Port() == m.port }) {
			wanted--
		}
	}
	if wanted == 0 {
		m.reached <- struct{}{}
	}
}

func (m *many) await(services int, change func()) {
	m.wanted.Store(int64(services))
	change()
	<-m.reached
}

// settle waits until every service has been looked at once.
func (m *many) settle() {
	for {
		views, newer := m.control.Views()
		if len(views) == manyServices {
			return
		}
		<-newer
	}
}

// replace has the blue instance of these services replaced by one at another port.
func (m *many) replace(names ...discovery.Service) {
	next := maps.Clone(m.world)
	m.port++
	for _, name := range names {
		next[name] = m.fleet()
	}
	m.await(len(names), func() { m.control.Discovered(next) })
}

// measure reports the processor time of what is measured beside the time that it takes.
func measure(b *testing.B, do func(i int)) {
	began, n := busy(b), 0
	for b.Loop() {
		do(n)
		n++
	}
	b.ReportMetric(float64((busy(b)-began).Milliseconds())/float64(n), "cpu-ms/op")
}

func busy(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFirstStart is from the first snapshot until everything is published, with a
// state of each service stored on the way.
func BenchmarkFirstStart(b *testing.B) {
	measure(b, func(int) { newMany(b) })
}

// BenchmarkOneChange is one new instance of one service, until it is published.
func BenchmarkOneChange(b *testing.B) {
	m := newMany(b)
	m.settle()
	measure(b, func(i int) { m.replace(discovery.Service(fmt.Sprintf("s%d", i%manyServices))) })
}

// BenchmarkEveryChange is a new instance of every service at once, until all are
// published.
func BenchmarkEveryChange(b *testing.B) {
	m := newMany(b)
	all := slices.Collect(maps.Keys(m.world))
	m.settle()
	measure(b, func(int) { m.replace(all...) })
}
