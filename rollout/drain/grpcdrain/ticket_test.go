package grpcdrain_test

import (
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// A stream that is let go gets a ticket as a trailer, and one that brings it is counted;
// one that ends by itself gets none.
func TestStreamsBringTheirTickets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := drain.Options{TicketKey: "a key of the fleet's"}
		blue, green := serve(t, opt, both), serve(t, opt, both)
		leaves, stays := blue.open("Talk"), blue.open("Talk")
		_ = leaves.CloseSend()
		if _, err := end(leaves); len(leaves.Trailer()[ticket.Word]) != 0 {
			t.Errorf("a stream that ended by itself with %v has the trailers %v", err, leaves.Trailer())
		}
		blue.order(contract.Order{Step: 1, Ceiling: new(0)})
		_, _ = end(stays)
		given := stays.Trailer()[ticket.Word]
		if len(given) != 1 {
			t.Fatalf("the trailers are %v", stays.Trailer())
		}
		for _, brought := range [][]string{given, given, {"AAAAAAAA"}, {given[0], "AAAAAAAA"}, nil} {
			ctx := t.Context()
			for _, one := range brought {
				ctx = metadata.AppendToOutgoingContext(ctx, ticket.Word, one)
			}
			c, err := green.cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Chat/Talk")
			if err != nil {
				t.Fatal(status.Convert(err))
			}
			synctest.Wait()
			_ = c.CloseSend()
			_, _ = end(c)
		}
		if s := green.Status(); s.Accepted != 5 || s.Ticketed == nil || *s.Ticketed != 1 {
			t.Errorf("%+v, want 5 accepted, of which 1 brought a ticket", s)
		}
	})
}
