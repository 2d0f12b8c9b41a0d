//go:build real

package rolloutd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/grpcdrain"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
)

const room discovery.Service = "room"

// TestRealGRPC: 100 streams over five client connections, half of them both ways,
// move to green at the funnel's pace, each told UNAVAILABLE once, while their
// client connections stay: a stream that is opened on one of them after the switch
// is on green.
func TestRealGRPC(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: "{funnel: {close: 20, every: 1s}}"})
	w.startEnvoy("edge-1", w.ctl.XDS)
	w.startEnvoy("edge-2", w.ctl.XDS)
	gates := map[string]*drain.Gate{}
	for _, c := range discovery.Colours {
		for i := range 2 {
			in, gate := startRoom(t, fmt.Sprintf("room-%.1s%d", c, i+1), c)
			w.instances[room] = append(w.instances[room], in)
			gates[string(in.ID)] = gate
		}
	}
	w.must(w.ctl.WriteInstances(w.instances))
	w.must(w.ctl.Configure(w.rest + "  - {name: room, listener: web, domains: [room.test], http2: true, policy: {funnel: {close: 20, every: 1s}}}\n"))
	w.ctl.Reload()
	w.await(room, "both proxies to acknowledge", func(st api.Status) bool { return st.Proxies.Connected == 2 && st.Proxies.Confirmed == 2 })

	d := w.dialRooms(5)
	streams := &callers{size: 100, dial: d.open, now: map[string]int{}}
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); streams.run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	w.until("all on blue", func() error { return streams.missing(discovery.Blue) })

	began := time.Now()
	id := w.promote(room, api.Promotion{Target: "green"})
	w.awaitPhase(room, state.Draining)
	for range 20 { // over every connection, while most streams are still on blue
		x, err := d.open(ctx, false)
		w.must(err)
		if x.hello.Colour != string(discovery.Green) {
			t.Errorf("a stream that was opened after the switch is on %s", x.hello.Instance)
		}
		x.end()
	}
	r := w.done(room, id)
	w.until("all on green", func() error { return streams.missing(discovery.Green) })

	all := slices.DeleteFunc(streams.all(), func(r clients.Record) bool { return r.At.Before(began) })
	left := slices.DeleteFunc(slices.Clone(all), func(r clients.Record) bool { return r.Kind != clients.Left })
	(&crowd{w: w}).gently(left, units.Funnel{Close: 20, Every: units.Duration(time.Second)})
	if len(left) != 100 || r.Evicted != 100 {
		t.Errorf("%d streams have ended, and the rollout says it evicted %d; want 100", len(left), r.Evicted)
	}
	if took := left[len(left)-1].At.Sub(left[0].At); took < 4*time.Second {
		t.Errorf("100 streams ended within %s, want about 5s", took)
	}
	for i := range streams.size {
		mine := slices.DeleteFunc(slices.Clone(all), func(r clients.Record) bool { return r.Client != i })
		if len(mine) != 2 || mine[0].Kind != clients.Left || mine[1].Kind != clients.Joined || mine[1].Hello.Colour != "green" {
			t.Errorf("stream %d went through %+v, want one end and green at once", i, mine)
		}
	}
	if n := d.dials.Load(); n != 5 {
		t.Errorf("the clients connected %d times, want their 5 connections from before", n)
	}
	returned := uint64(0)
	for _, id := range []string{"room-g1", "room-g2"} {
		s := gates[id].Status()
		returned += *s.Returned
		if s.Accepted == 0 || s.Evicted > 0 {
			t.Errorf("%s: %+v, want its share of the streams and no eviction", id, s)
		}
	}
	if returned != 100 {
		t.Errorf("green counted %d returning streams, want 100", returned)
	}
}

// startRoom is a gRPC server with two streams: Feed says who it is and nothing
// more, Talk says it and then again what it hears.
func startRoom(t *testing.T, name string, c discovery.Colour) (fleet.Instance, *drain.Gate) {
	t.Helper()
	return startRoomOf(t, drain.Options{CountsReturns: true}, name, c)
}

func startRoomOf(t *testing.T, o drain.Options, name string, c discovery.Colour) (fleet.Instance, *drain.Gate) {
	t.Helper()
	gate := drain.New(o)
	hello, err := json.Marshal(clients.Hello{Instance: name, Colour: string(c)})
	if err != nil {
		t.Fatal(err)
	}
	greet := func(s grpc.ServerStream) error {
		if md, _ := metadata.FromIncomingContext(s.Context()); len(md.Get("returning")) > 0 {
			grpcdrain.Returned(s.Context())
		}
		return s.SendMsg(wrapperspb.String(string(hello)))
	}
	feed := func(_ any, s grpc.ServerStream) error {
		err := greet(s)
		<-s.Context().Done()
		return err
	}
	talk := func(_ any, s grpc.ServerStream) error {
		err := greet(s)
		for m := new(wrapperspb.StringValue); err == nil; m = new(wrapperspb.StringValue) {
			if err = s.RecvMsg(m); err == nil {
				err = s.SendMsg(m)
			}
		}
		return err
	}
	srv := grpc.NewServer(grpc.StreamInterceptor(grpcdrain.Stream(gate)))
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Room", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
		{StreamName: "Feed", Handler: feed, ServerStreams: true},
		{StreamName: "Talk", Handler: talk, ServerStreams: true, ClientStreams: true},
	}}, nil)
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _ = srv.Serve(listeners[0]) }()
	go func() { _ = http.Serve(listeners[1], gate.Endpoint()) }()
	t.Cleanup(func() { srv.Stop(); _ = listeners[1].Close() })
	return fleet.Instance{
		ID: discovery.InstanceID(name), Colour: c, Address: listeners[0].Addr().String(), Drain: listeners[1].Addr().String(),
	}, gate
}

// roomDialer opens streams over a few client connections, in turn.
type roomDialer struct {
	conns         []*grpc.ClientConn
	opened, dials atomic.Int64
}

func (w *world) dialRooms(n int) *roomDialer {
	w.t.Helper()
	d := &roomDialer{}
	for range n {
		cc, err := grpc.NewClient(w.web.String(), grpc.WithAuthority("room.test"), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				d.dials.Add(1)
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			}))
		w.must(err)
		w.t.Cleanup(func() { _ = cc.Close() })
		d.conns = append(d.conns, cc)
	}
	return d
}

// open opens the next stream: Feed and Talk in turn, over each connection.
func (d *roomDialer) open(ctx context.Context, returning bool) (call, error) {
	n := int(d.opened.Add(1))
	ctx, cancel := context.WithCancel(ctx)
	if returning {
		ctx = metadata.AppendToOutgoingContext(ctx, "returning", "1")
	}
	method, desc := "/test.Room/Feed", &grpc.StreamDesc{ServerStreams: true}
	if n/len(d.conns)%2 == 1 {
		method, desc = "/test.Room/Talk", &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	}
	x := call{end: cancel}
	hello := new(wrapperspb.StringValue)
	s, err := d.conns[n%len(d.conns)].NewStream(ctx, desc, method)
	if err == nil && desc.ClientStreams {
		err = s.SendMsg(wrapperspb.String("ping"))
	} else if err == nil {
		err = errors.Join(s.SendMsg(wrapperspb.String("hello")), s.CloseSend())
	}
	if err == nil {
		err = s.RecvMsg(hello)
	}
	if err == nil {
		err = json.Unmarshal([]byte(hello.Value), &x.hello)
	}
	if err == nil && desc.ClientStreams {
		err = s.RecvMsg(new(wrapperspb.StringValue)) // the echo
	}
	if err != nil {
		cancel()
		return call{}, err
	}
	x.stay = func() error {
		defer cancel()
		err := s.RecvMsg(new(wrapperspb.StringValue))
		if reason, _ := grpcdrain.Reason(err); reason == grpcdrain.Evicted {
			return nil
		}
		return fmt.Errorf("the stream ended: %w", err)
	}
	return x, nil
}
