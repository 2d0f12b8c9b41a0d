package grpcdrain_test

import (
	"context"
	"io"
	"runtime"
	"testing"

	"google.golang.org/grpc"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/grpcdrain"
)

// still is a stream with messages at hand, or none ever.
type still struct {
	grpc.ServerStream
	ctx  context.Context
	left int
}

func (s *still) Context() context.Context { return s.ctx }
func (s *still) RecvMsg(any) error {
	switch s.left--; {
	case s.left >= 0:
		return nil
	case s.left == -1:
		return io.EOF
	}
	<-s.ctx.Done()
	return s.ctx.Err()
}

var bidi = &grpc.StreamServerInfo{FullMethod: "/test.Chat/Talk", IsClientStream: true, IsServerStream: true}

// BenchmarkReceive is what the interceptor adds to a received message.
func BenchmarkReceive(b *testing.B) {
	via := grpcdrain.Stream(drain.New(drain.Options{}))
	_ = via(nil, &still{ctx: b.Context(), left: b.N}, bidi, func(_ any, s grpc.ServerStream) error {
		for s.RecvMsg(nil) == nil {
		}
		return nil
	})
}

// BenchmarkIdle reports the bytes that it adds to an idle stream, stacks included.
func BenchmarkIdle(b *testing.B) {
	const n = 10_000
	for name, info := range map[string]*grpc.StreamServerInfo{"feed": {FullMethod: "/test.Chat/Feed"}, "talk": bidi} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				g := drain.New(drain.Options{})
				via := grpcdrain.Stream(g)
				ctx, cancel := context.WithCancel(b.Context())
				ended, in := make(chan struct{}, n), make(chan struct{}, n)
				start := func(via grpc.StreamServerInterceptor) {
					for range n {
						go func() {
							_ = via(nil, &still{ctx: ctx, left: -1}, info, func(_ any, s grpc.ServerStream) error {
								in <- struct{}{}
								return s.RecvMsg(nil)
							})
							ended <- struct{}{}
						}()
					}
					for range n {
						<-in
					}
				}
				begin := inUse()
				start(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
					return h(srv, s)
				})
				plain := inUse()
				start(via)
				b.ReportMetric((float64(inUse()-plain)-float64(plain-begin))/n, "bytes/stream")
				cancel()
				for range 2 * n {
					<-ended
				}
			}
		})
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
