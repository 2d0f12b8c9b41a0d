//go:build real

package xds_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"

	"github.com/sluice-proxy/sluice/xds"
)

// realServer is a server on loopback.
type realServer struct {
	*xds.Server
	t    *testing.T
	addr string
	grpc *grpc.Server
}

func serveReal(t *testing.T, addr string) *realServer {
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s := &realServer{Server: xds.New(o), t: t, addr: lis.Addr().String(), grpc: grpc.NewServer(xds.ServerOptions()...)}
	s.Register(s.grpc)
	go func() { _ = s.grpc.Serve(lis) }() // Stop in stop or Cleanup ends it
	t.Cleanup(s.stop)
	return s
}

func (s *realServer) stop() { s.grpc.Stop() }

func (s *realServer) until(ctx context.Context, ok func(xds.Proxy) bool) {
	s.t.Helper()
	for {
		proxies := s.Proxies()
		if len(proxies) == 1 && ok(proxies[0]) {
			return
		}
		select {
		case <-s.Changed():
		case <-ctx.Done():
			s.t.Fatalf("waited in vain: %+v", proxies)
		}
	}
}

// await waits until the proxy holds the set.
func (s *realServer) await(ctx context.Context, set []xds.Resource) {
	s.t.Helper()
	all := map[xds.Ref]string{}
	for _, r := range set {
		all[r.Ref] = r.Version
	}
	s.until(ctx, func(p xds.Proxy) bool { return p.Holds(all) })
}
