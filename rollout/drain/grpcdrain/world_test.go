package grpcdrain_test

import (
	"context"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/grpcdrain"
	"github.com/sluice-proxy/sluice/rollout/drain/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

type text = wrapperspb.StringValue

// The service: Feed streams from the server, Talk both ways, Say is unary.
type handlers struct {
	feed, talk func(grpc.ServerStream) error
}

func (h handlers) desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Chat",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(_ any, ctx context.Context, dec func(any) error, via grpc.UnaryServerInterceptor) (any, error) {
			in := new(text)
			if err := dec(in); err != nil {
				return nil, err
			}
			say := func(context.Context, any) (any, error) { return in, nil }
			if via == nil {
				return say(ctx, in)
			}
			return via(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/test.Chat/Say"}, say)
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Feed", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return h.feed(s) }},
			{StreamName: "Talk", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return h.talk(s) }},
		},
	}
}

// feed says hello and nothing more, until its context ends.
func feed(s grpc.ServerStream) error {
	if err := s.RecvMsg(new(text)); err != nil {
		return err
	}
	if err := s.SendMsg(wrapperspb.String("hello")); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

// talk echoes until the client or the stream ends.
func talk(s grpc.ServerStream) error {
	for {
		m := new(text)
		switch err := s.RecvMsg(m); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

// server is a gate before a grpc server in memory, with one client connection.
// It may be used in a bubble.
type server struct {
	t *testing.T
	*drain.Gate
	srv *grpc.Server
	cc  *grpc.ClientConn
	in  *bufconn.Listener
}

func serve(t *testing.T, opt drain.Options, h handlers, more ...grpc.ServerOption) *server {
	t.Helper()
	s := &server{t: t, Gate: drain.New(opt), in: bufconn.Listen(1 << 20)}
	s.srv = grpc.NewServer(append(more, grpc.ChainStreamInterceptor(grpcdrain.Stream(s.Gate)), grpc.ChainUnaryInterceptor(grpcdrain.Unary(s.Gate)))...)
	s.srv.RegisterService(h.desc(), nil)
	healthpb.RegisterHealthServer(s.srv, health.NewServer())
	ended := make(chan error, 1)
	go func() { ended <- s.srv.Serve(s.in) }()
	s.cc = s.dial()
	t.Cleanup(func() {
		_ = s.cc.Close()
		s.srv.Stop()
		<-ended
	})
	return s
}

func (s *server) dial() *grpc.ClientConn {
	s.t.Helper()
	cc, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.in.DialContext(ctx) }))
	if err != nil {
		s.t.Fatal(err)
	}
	return cc
}

// open opens a stream, says hello and waits for it to come back.
func (s *server) open(method string) grpc.ClientStream {
	s.t.Helper()
	c := s.begin(method)
	if err := c.SendMsg(wrapperspb.String("hello")); err != nil {
		s.t.Fatal(err)
	}
	if err := c.RecvMsg(new(text)); err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *server) begin(method string) grpc.ClientStream {
	s.t.Helper()
	c, err := s.cc.NewStream(s.t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: method == "Talk"}, "/test.Chat/"+method)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// end is how a stream ended, behind what it had still to say.
func end(c grpc.ClientStream) (rest []string, err error) {
	for {
		m := new(text)
		if err := c.RecvMsg(m); err != nil {
			return rest, err
		}
		rest = append(rest, m.Value)
	}
}

// order tells the gate through its endpoint.
func (s *server) order(o contract.Order) {
	s.t.Helper()
	if err := orderTo(s.Gate, o); err != nil {
		s.t.Fatal(err)
	}
}
