// Package xds_test compares the xDS server with go-control-plane's caches, from outside: a server and
// its clients in two processes, over TCP on loopback.
package xds_test

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

var (
	sizes  = flag.String("sizes", "1000x1000,5000x200", "streams x resources")
	rounds = flag.Int("rounds", 20, "how often one resource is changed")
	churn  = flag.String("churn", "2000x200", "streams x resources under constant change; empty: none")
	during = flag.Int("churn-seconds", 30, "how long that lasts")
)

// BenchmarkXDS prints a table for each size; -benchtime 1x.
func BenchmarkXDS(b *testing.B) {
	for range b.N {
		for size := range strings.SplitSeq(*sizes, ",") {
			streams, resources := parse(b, size)
			compare(b, size, func(kind string) []figure { return measure(b, kind, streams, resources) })
		}
		if *churn != "" {
			streams, resources := parse(b, *churn)
			compare(b, *churn+", 250 changes a second", func(kind string) []figure { return churned(b, kind, streams, resources) })
		}
	}
}

func parse(b *testing.B, size string) (streams, resources int) {
	if _, err := fmt.Sscanf(size, "%dx%d", &streams, &resources); err != nil {
		b.Fatal(err)
	}
	return streams, resources
}

// figure is one row of one server; less is better.
type figure struct {
	what  string
	value float64
}

// compare prints the figures of the three, and ours over the better of the others.
func compare(b *testing.B, title string, of func(kind string) []figure) {
	ours, linear, snapshot := of("sluice"), of("LinearCache"), of("SnapshotCache")
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%s\tsluice\tLinearCache\tSnapshotCache\tratio\n", title)
	for i, f := range ours {
		better := min(linear[i].value, snapshot[i].value)
		_, _ = fmt.Fprintf(w, "%s\t%.3g\t%.3g\t%.3g\t%.2f\n", f.what, f.value, linear[i].value, snapshot[i].value, f.value/cmp.Or(better, math.NaN()))
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
}

// server is one in a process of its own.
type server struct {
	b    *testing.B
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	addr string
}

func begin(b *testing.B, kind string, resources int) *server {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s := &server{b: b, cmd: exec.Command(self)}
	s.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", serveAs, kind, resources))
	s.cmd.Stderr = os.Stderr
	in, err1 := s.cmd.StdinPipe()
	out, err2 := s.cmd.StdoutPipe()
	if err := cmp.Or(err1, err2, s.cmd.Start()); err != nil {
		b.Fatal(err)
	}
	s.in, s.out = in, bufio.NewScanner(out)
	s.addr = s.line()
	return s
}

func (s *server) line() string {
	if !s.out.Scan() {
		s.b.Fatal("the server ended")
	}
	return s.out.Text()
}

// ask says a line to the server and returns the number that it answers.
func (s *server) ask(format string, args ...any) (n float64) {
	if _, err := fmt.Fprintf(s.in, format+"\n", args...); err != nil {
		s.b.Fatal(err)
	}
	if _, err := fmt.Sscan(s.line(), &n); err != nil {
		s.b.Fatal(err)
	}
	return n
}

func (s *server) end() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}

// crowd is many streams that ask for everything by name.
type crowd struct {
	server    *server
	streams   int
	names     []string
	claims    map[string]string
	took      func(r *discovery.Resource) // what is received, if set
	complete  func()                      // when a stream has as many resources as are to come
	expected  int
	received  atomic.Int64 // resources
	responses atomic.Int64
	cancel    context.CancelFunc
	done      sync.WaitGroup
	conns     []*grpc.ClientConn
}

func (c *crowd) join() {
	ctx, cancel := context.WithCancel(c.server.b.Context())
	c.cancel = cancel
	for i := range c.streams {
		if i%50 == 0 {
			conn, err := grpc.NewClient(c.server.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
			if err != nil {
				c.server.b.Fatal(err)
			}
			c.conns = append(c.conns, conn)
		}
		conn := c.conns[len(c.conns)-1]
		c.done.Go(func() { c.stream(ctx, conn, i) })
	}
}

// stream is one proxy, until ctx ends.
func (c *crowd) stream(ctx context.Context, conn *grpc.ClientConn, i int) {
	str, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		c.server.b.Error(err)
		return
	}
	_ = str.Send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: fmt.Sprintf("edge-%05d", i)}, TypeUrl: eds,
		ResourceNamesSubscribe: c.names, InitialResourceVersions: maps.Clone(c.claims),
	})
	missing := c.expected
	for {
		m, err := str.Recv()
		if err != nil {
			return
		}
		_ = str.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: eds, ResponseNonce: m.Nonce})
		c.responses.Add(1)
		c.received.Add(int64(len(m.Resources)))
		if missing > 0 {
			if missing -= len(m.Resources); missing <= 0 {
				c.complete()
			}
			continue
		}
		if c.took != nil {
			for _, r := range m.Resources {
				c.took(r)
			}
		}
	}
}

// arrive has the crowd join and waits until each stream has what is expected.
func (c *crowd) arrive() time.Duration {
	all := make(chan struct{})
	var have atomic.Int64
	c.complete = func() {
		if have.Add(1) == int64(c.streams) {
			close(all)
		}
	}
	began := time.Now()
	c.join()
	<-all
	return time.Since(began)
}

func (c *crowd) leave() {
	c.cancel()
	c.done.Wait()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

func weight(b *testing.B, r *discovery.Resource) uint32 {
	a := &endpoint.ClusterLoadAssignment{}
	if err := r.Resource.UnmarshalTo(a); err != nil {
		b.Error(err)
	}
	return a.Endpoints[0].LbEndpoints[0].LoadBalancingWeight.GetValue()
}

func quantile(of []float64, q float64) float64 {
	if len(of) == 0 {
		return math.NaN()
	}
	slices.Sort(of)
	return of[int(q*float64(len(of)-1)+0.5)]
}

func names(n int) (names []string) {
	for i := range n {
		names = append(names, named(i))
	}
	return names
}

// measure is one server at one size: the first sync of all, one change after the other, and the return of all.
func measure(b *testing.B, kind string, streams, resources int) []figure {
	s := begin(b, kind, resources)
	defer s.end()
	empty := s.ask("heap")
	c := &crowd{server: s, streams: streams, names: names(resources), expected: resources}
	var newest atomic.Uint32
	var have atomic.Int64
	all := make(chan struct{}, 1)
	var mu sync.Mutex
	versions := map[string]string{}
	c.took = func(r *discovery.Resource) {
		if r.Name == named(0) && weight(b, r) == newest.Load() && have.Add(1) == int64(streams) {
			all <- struct{}{}
		}
	}
	sync1 := c.arrive()
	spent := s.ask("cpu")
	heap := (s.ask("heap") - empty) / float64(streams) / 1024
	var last, call []float64
	for i := range *rounds + 1 {
		have.Store(0)
		newest.Store(uint32(i + 2))
		began := time.Now()
		took := s.ask("change 0 %d", i+2)
		<-all
		if i > 0 { // the first is a rehearsal
			last, call = append(last, float64(time.Since(began).Microseconds())/1e3), append(call, took/1e6)
		}
	}
	c.leave()

	// One learns the versions. One of the resources is claimed in another, so that each stream is told of
	// exactly that one: then it is back.
	learner := &crowd{server: s, streams: 1, names: c.names, expected: 0, took: func(r *discovery.Resource) {
		mu.Lock()
		defer mu.Unlock()
		versions[r.Name] = r.Version
		if len(versions) == resources {
			all <- struct{}{}
		}
	}}
	learner.join()
	<-all
	learner.leave()
	versions[named(resources-1)] = "another"
	back := &crowd{server: s, streams: streams, names: c.names, claims: versions, expected: 1}
	spent2 := s.ask("cpu")
	returned := back.arrive()
	spent2 = s.ask("cpu") - spent2
	more := back.received.Load() - int64(streams)
	back.leave()
	return []figure{
		{"first sync of all, s", sync1.Seconds()},
		{"– the server's CPU, s", spent},
		{"– responses per stream", float64(c.responses.Load())/float64(streams) - float64(*rounds+1)},
		{"a change is at the last, p50, ms", quantile(last, 0.5)},
		{"a change is at the last, p99, ms", quantile(last, 0.99)},
		{"publish call, p50, ms", quantile(call, 0.5)},
		{"heap per stream, KB", heap},
		{"return of all, s", returned.Seconds()},
		{"– the server's CPU, s", spent2},
		{"– resources sent again", float64(more)},
	}
}

// churned is one server while resources change all the time: how long each change takes to a stream, in the
// first and the last third, and how many changes a response brings.
func churned(b *testing.B, kind string, streams, resources int) []figure {
	s := begin(b, kind, resources)
	defer s.end()
	c := &crowd{server: s, streams: streams, names: names(resources), expected: resources}
	var began atomic.Int64 // Unix milliseconds
	var mu sync.Mutex
	var early, late []float64
	c.took = func(r *discovery.Resource) {
		at := time.Now().UnixMilli() - began.Load()
		then := int64(weight(b, r))
		mu.Lock()
		defer mu.Unlock()
		switch third := int64(*during) * 1000 / 3; {
		case then < third:
			early = append(early, float64(at-then))
		case then > 2*third:
			late = append(late, float64(at-then))
		}
	}
	c.arrive()
	received, responses := c.received.Load(), c.responses.Load()
	began.Store(time.Now().UnixMilli())
	changes := s.ask("churn %d 250", *during)
	overran := float64(time.Now().UnixMilli()-began.Load())/1e3 - float64(*during)
	for last := int64(-1); last != c.received.Load(); time.Sleep(time.Second) { // until nothing more comes
		last = c.received.Load()
	}
	c.leave()
	return []figure{
		{"changes in all", changes},
		{"the publisher was late by, s", max(0, overran)},
		{"lag in the first third, p50, ms", quantile(early, 0.5)},
		{"lag in the first third, p99, ms", quantile(early, 0.99)},
		{"lag in the last third, p50, ms", quantile(late, 0.5)},
		{"lag in the last third, p99, ms", quantile(late, 0.99)},
		{"resources per change and stream", float64(c.received.Load()-received) / float64(streams) / changes},
		{"responses per change and stream", float64(c.responses.Load()-responses) / float64(streams) / changes},
	}
}
