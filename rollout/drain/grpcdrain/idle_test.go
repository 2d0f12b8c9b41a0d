package grpcdrain_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/grpcdrain"
)

// Activity on a stream is what Idlest goes by.
func TestIdleStreamsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, drain.Options{}, both)
		talks := []grpc.ClientStream{s.open("Talk"), s.open("Talk"), s.open("Talk")}
		time.Sleep(time.Minute)
		_ = talks[0].SendMsg(wrapperspb.String("busy"))
		_ = talks[0].RecvMsg(new(text))
		time.Sleep(time.Minute)
		_ = talks[2].SendMsg(wrapperspb.String("busier"))
		_ = talks[2].RecvMsg(new(text))
		s.order(contract.Order{Step: 1, Ceiling: new(0), OverMS: 3000, Pick: contract.Idlest})
		start := time.Now()
		for at, i := range []int{1, 0, 2} {
			_, err := end(talks[i])
			mustBe(t, err, grpcdrain.Evicted)
			if took := time.Since(start); took != time.Duration(at)*time.Second {
				t.Errorf("stream %d ended after %s, want %ds", i, took, at)
			}
		}
	})
}

// What only the server sends is activity, too.
func TestASendingStreamIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, drain.Options{}, handlers{talk: talk, feed: func(s grpc.ServerStream) error {
			_ = s.SendMsg(wrapperspb.String("hello"))
			time.Sleep(time.Minute)
			_ = s.SendMsg(wrapperspb.String("news"))
			<-s.Context().Done()
			return nil
		}})
		sending := s.open("Feed")
		time.Sleep(30 * time.Second)
		idle := s.open("Talk")
		time.Sleep(time.Minute)
		s.order(contract.Order{Step: 1, Ceiling: new(1), Pick: contract.Idlest})
		_, err := end(idle)
		mustBe(t, err, grpcdrain.Evicted)
		s.order(contract.Order{Step: 2, Ceiling: new(0)})
		_, err = end(sending)
		mustBe(t, err, grpcdrain.Evicted)
	})
}
