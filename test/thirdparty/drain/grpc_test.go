package drain_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/conform"
	"github.com/sluice-proxy/sluice/rollout/drain/grpcdrain"
)

// Streams of grpc-go keep every rule, with tickets.
func TestStreamsKeepEveryRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := drain.New(drain.Options{Token: token, TicketKey: "a key of the fleet's"}), network{}
		n.serve(t, "instance:9100", g.Endpoint())
		srv := grpc.NewServer(grpc.ChainStreamInterceptor(grpcdrain.Stream(g)), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			for {
				if err := s.RecvMsg(new(emptypb.Empty)); err != nil {
					return err
				}
			}
		}))
		ended := make(chan error, 1)
		in := bufconn.Listen(1 << 20) // both sides of HTTP/2 write first
		go func() { ended <- srv.Serve(in) }()
		defer func() { srv.Stop(); <-ended }()

		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "instance:9000" {
				return in.DialContext(ctx)
			}
			return n.dial(ctx, network, addr)
		}
		tried := 0
		err := conform.Run(t.Context(), conform.Options{URL: "http://instance:9100", Token: token, Connect: "grpc://instance:9000/t.Room/Join", Dial: dial}, func(r conform.Result) {
			if r.Verdict != conform.Pass {
				t.Errorf("%s: %s: %s", r.Rule, r.Verdict, r.Why)
			}
			tried++
		})
		if err != nil || tried != len(conform.Rules()) {
			t.Errorf("%d rules were tried, %v", tried, err)
		}
	})
}
