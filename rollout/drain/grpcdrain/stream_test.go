package grpcdrain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/grpcdrain"
)

var both = handlers{feed: feed, talk: talk}

func orderTo(g *drain.Gate, o contract.Order) error {
	o.Rollout, o.Epoch = "r", 1
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	r := httptest.NewRequest(http.MethodPut, "/drain", bytes.NewReader(b))
	r.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	if g.Endpoint().ServeHTTP(w, r); w.Code != http.StatusOK {
		return fmt.Errorf("order: %d %s", w.Code, w.Body)
	}
	return nil
}

func mustBe(t *testing.T, err error, reason string) {
	t.Helper()
	got, _ := grpcdrain.Reason(err)
	if status.Code(err) != codes.Unavailable || got != reason {
		t.Errorf("the call ended with %v (%q), want UNAVAILABLE and %s", err, got, reason)
	}
}

// 20 streams of both kinds on one client connection end at the pace of the
// orders, each once, and the others go on.
func TestStreamsEndAtThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, drain.Options{}, both)
		var mu sync.Mutex
		var ends []time.Duration
		var clients sync.WaitGroup
		start := time.Now()
		for i := range 20 {
			c := s.open([]string{"Feed", "Talk"}[i%2])
			clients.Go(func() {
				_, err := end(c)
				mu.Lock()
				defer mu.Unlock()
				mustBe(t, err, grpcdrain.Evicted)
				ends = append(ends, time.Since(start))
			})
		}
		if st := s.Status(); st.Active != 20 || st.Accepted != 20 {
			t.Fatalf("status %+v, want 20 active", st)
		}
		for step := range 4 {
			s.order(contract.Order{Step: uint64(step + 1), Ceiling: new(15 - 5*step), OverMS: 5000, StartMS: 500})
			time.Sleep(5 * time.Second)
			synctest.Wait()
			mu.Lock()
			ended := len(ends)
			mu.Unlock()
			if want := 5 * (step + 1); ended != want {
				t.Fatalf("%d streams have ended after step %d, want %d", ended, step+1, want)
			}
		}
		clients.Wait()
		for i, at := range ends {
			if want := 500*time.Millisecond + time.Duration(i)*time.Second; at != want {
				t.Errorf("stream %d ended at %s, want %s", i, at, want)
			}
		}
		if st := s.Status(); st.State != contract.Drained || st.Evicted != 20 {
			t.Errorf("status %+v, want 20 evicted and drained", st)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAnEvictedHandlerHearsOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := make(chan error, 2)
		s := serve(t, drain.Options{}, handlers{
			feed: func(s grpc.ServerStream) error {
				_ = s.SendMsg(wrapperspb.String("hello"))
				<-s.Context().Done()
				heard <- context.Cause(s.Context())
				_ = s.SendMsg(wrapperspb.String("goodbye"))
				return nil // replaced
			},
			talk: func(s grpc.ServerStream) error {
				err := talk(s)
				heard <- err
				again := s.RecvMsg(new(text))
				_ = s.SendMsg(wrapperspb.String(status.Code(again).String()))
				return status.Error(codes.Internal, "replaced")
			},
		})
		feed, talk := s.open("Feed"), s.open("Talk")
		start := time.Now()
		s.order(contract.Order{Step: 1, Ceiling: new(0)})
		for c, want := range map[grpc.ClientStream]string{feed: "goodbye", talk: "Unavailable"} {
			rest, err := end(c)
			mustBe(t, err, grpcdrain.Evicted)
			if !slices.Equal(rest, []string{want}) {
				t.Errorf("its last words were %q, want %s", rest, want)
			}
		}
		for range 2 {
			if err := <-heard; !errors.Is(err, drain.ErrEvicted) {
				t.Errorf("the handler heard %v, want ErrEvicted", err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %s, want no waiting", took)
		}
	})
}

// A handler that hears nothing is left behind: the client's stream ends, and what
// the handler does afterwards fails and harms nobody.
func TestAHandlerThatHearsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, after := make(chan struct{}), make(chan error, 2)
		s := serve(t, drain.Options{CloseWait: 3 * time.Second}, handlers{talk: func(s grpc.ServerStream) error {
			_ = s.SendMsg(wrapperspb.String("hello"))
			<-free
			after <- s.SendMsg(wrapperspb.String("too late"))
			after <- s.RecvMsg(new(text))
			s.SetTrailer(nil)
			return nil
		}})
		c, start := s.open("Talk"), time.Now()
		s.order(contract.Order{Step: 1, Ceiling: new(0)})
		rest, err := end(c)
		mustBe(t, err, grpcdrain.Evicted)
		if took := time.Since(start); took != 3*time.Second || len(rest) > 0 {
			t.Errorf("it ended after %s with %q, want 3s and nothing", took, rest)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		s.srv.GracefulStop() // waits for no such handler
		close(free)
		for range 2 {
			if err := <-after; !errors.Is(err, drain.ErrEvicted) {
				t.Errorf("afterwards: %v, want ErrEvicted", err)
			}
		}
	})
}

// Its peer reads nothing, so that it is stuck in SendMsg.
func TestAHandlerThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan error, 1)
		s := serve(t, drain.Options{}, handlers{feed: func(s grpc.ServerStream) error {
			big := wrapperspb.String(strings.Repeat("x", 1<<20))
			for {
				if err := s.SendMsg(big); err != nil {
					stuck <- err
					return err
				}
			}
		}})
		c := s.begin("Feed")
		if err := c.SendMsg(wrapperspb.String("hello")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.order(contract.Order{Step: 1, Ceiling: new(0)})
		if err := <-stuck; err == nil {
			t.Error("SendMsg went through")
		}
		_, err := end(c)
		mustBe(t, err, grpcdrain.Evicted)
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, drain.Options{Limit: 2, RetryAfter: 1500 * time.Millisecond}, both)
		say := func() error { return s.cc.Invoke(t.Context(), "/test.Chat/Say", wrapperspb.String("x"), new(text)) }
		first, second := s.open("Talk"), s.open("Feed")
		for _, m := range []string{"Talk", "Feed"} {
			_, err := end(s.begin(m))
			mustBe(t, err, grpcdrain.Full)
		}
		if err := say(); err != nil {
			t.Errorf("a unary call at the limit: %v", err)
		}
		s.order(contract.Order{Step: 1})
		for _, m := range []string{"Talk", "Feed"} {
			_, err := end(s.begin(m))
			mustBe(t, err, grpcdrain.Draining)
			details := status.Convert(err).Details()
			if i := slices.IndexFunc(details, func(d any) bool { _, ok := d.(*errdetails.RetryInfo); return ok }); i < 0 ||
				details[i].(*errdetails.RetryInfo).RetryDelay.AsDuration() != 1500*time.Millisecond {
				t.Errorf("the refusal says %v, want to wait 1.5s", details)
			}
		}
		mustBe(t, say(), grpcdrain.Draining)
		if _, err := healthpb.NewHealthClient(s.cc).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Errorf("a health check while draining: %v", err)
		}
		if st := s.Status(); st.Accepted != 2 || st.Active != 2 || st.Limit != 2 || st.Evicted != 0 {
			t.Errorf("status %+v, want the two streams", st)
		}
		// Those that are held go on, and may end in their own way.
		if err := first.SendMsg(wrapperspb.String("still")); err != nil {
			t.Error(err)
		}
		_ = first.CloseSend()
		if rest, err := end(first); err != io.EOF || !slices.Equal(rest, []string{"still"}) {
			t.Errorf("a held stream ended with %q, %v; want its own end", rest, err)
		}
		s.order(contract.Order{Step: 2, Ceiling: new(0)})
		_, err := end(second)
		mustBe(t, err, grpcdrain.Evicted)
		if st := s.Status(); st.Evicted != 1 {
			t.Errorf("%d were evicted, want 1", st.Evicted)
		}
	})
}

// Who leaves by itself, and how a handler ends, is no business of the gate.
func TestOtherEndsAreAsEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan error, 1)
		s := serve(t, drain.Options{}, handlers{
			feed: func(grpc.ServerStream) error { return status.Error(codes.NotFound, "no such room") },
			talk: func(s grpc.ServerStream) error {
				grpcdrain.Returned(s.Context())
				err := talk(s)
				gone <- context.Cause(s.Context())
				return err
			},
		})
		if _, err := end(s.begin("Feed")); status.Code(err) != codes.NotFound {
			t.Errorf("the handler's error came as %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		c, err := s.cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Chat/Talk")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SendMsg(wrapperspb.String("hello"))
		if err := c.RecvMsg(new(text)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-gone; err != context.Canceled {
			t.Errorf("the client left, and the handler heard %v", err)
		}
		synctest.Wait()
		if st := s.Status(); st.Active != 0 || st.Accepted != 2 || st.Evicted != 0 || *st.Returned != 1 {
			t.Errorf("status %+v, want 2 accepted, 1 returned and none evicted", st)
		}
		grpcdrain.Returned(t.Context()) // of no gate: nothing
	})
}

func TestAPanicReachesTheInterceptorsOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		caught := make(chan error, 1)
		s := serve(t, drain.Options{}, handlers{feed: func(grpc.ServerStream) error { panic(broken) }},
			grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
				defer func() {
					p, _ := recover().(*grpcdrain.Panic)
					caught <- p
					err = status.Error(codes.Internal, "panic")
				}()
				return h(srv, ss)
			}))
		if _, err := end(s.begin("Feed")); status.Code(err) != codes.Internal {
			t.Errorf("the client got %v", err)
		}
		if err := <-caught; !errors.Is(err, broken) || !strings.Contains(err.Error(), "TestAPanicReaches") {
			t.Errorf("caught %v, want the handler's panic and where it was", err)
		}
		if st := s.Status(); st.Active != 0 {
			t.Errorf("%d are held after a panic", st.Active)
		}
	})
}

// Streams come, talk, leave and are evicted all at once: every one that the gate
// says it evicted ended so at its client, and no other did.
func TestEveryEvictionIsSeenOnce(t *testing.T) {
	s := serve(t, drain.Options{CloseWait: 20 * time.Millisecond}, both)
	var evicted, own, refused int
	for epoch := range 20 {
		var mu sync.Mutex
		var clients sync.WaitGroup
		for i := range 40 {
			c := s.begin([]string{"Feed", "Talk"}[i%2])
			clients.Go(func() {
				_ = c.SendMsg(wrapperspb.String("hello"))
				if i%4 == 1 {
					_ = c.RecvMsg(new(text))
					_ = c.CloseSend()
				}
				_, err := end(c)
				reason, _ := grpcdrain.Reason(err)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case reason == grpcdrain.Evicted:
					evicted++
				case reason == grpcdrain.Draining:
					refused++
				case err == io.EOF:
					own++
				default:
					t.Errorf("a stream ended with %v", err)
				}
			})
		}
		c := contract.NewClient("")
		endpoint := httptest.NewServer(s.Endpoint())
		o := contract.Order{Rollout: "r", Epoch: uint64(epoch + 1), Step: 1, Ceiling: new(0), OverMS: 5}
		_, err := c.Order(t.Context(), endpoint.URL, o)
		clients.Wait()
		_, err2 := c.Release(t.Context(), endpoint.URL, contract.Release{Rollout: "r", Epoch: o.Epoch})
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		c.Close()
		endpoint.Close()
	}
	if st := s.Status(); st.Evicted != uint64(evicted) || st.Accepted != uint64(evicted+own) || st.Active != 0 || evicted+own+refused != 800 {
		t.Errorf("the clients saw %d evictions, %d own ends, %d refusals; status %+v", evicted, own, refused, st)
	}
}

// A level that covers a node ends and refuses only what came through it.
func TestALevelOfOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, drain.Options{}, both)
		through := func(node string) context.Context {
			return metadata.AppendToOutgoingContext(t.Context(), "x-envoy-downstream-service-node", node)
		}
		var streams []grpc.ClientStream
		for _, node := range []string{"edge-1", "edge-2"} {
			c, err := s.cc.NewStream(through(node), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Chat/Talk")
			if err == nil {
				err = c.SendMsg(wrapperspb.String("hello"))
			}
			if err == nil {
				err = c.RecvMsg(new(text))
			}
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, c)
		}
		s.order(contract.Order{Level: "edge", From: []string{"edge-1"}, Ceiling: new(0)})
		_, err := end(streams[0])
		mustBe(t, err, grpcdrain.Evicted)
		for node, want := range map[string]string{"edge-1": grpcdrain.Draining, "edge-2": ""} {
			err := s.cc.Invoke(through(node), "/test.Chat/Say", wrapperspb.String("x"), new(text))
			if got, _ := grpcdrain.Reason(err); got != want {
				t.Errorf("a call through %s: %v, want %q", node, err, want)
			}
		}
		if err := streams[1].SendMsg(wrapperspb.String("still here")); err != nil {
			t.Error(err)
		}
		if err := streams[1].RecvMsg(new(text)); err != nil {
			t.Errorf("the stream through edge-2: %v", err)
		}
	})
}
