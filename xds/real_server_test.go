//go:build real

package xds_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"

	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
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

func (s *realServer) Publish(set []resource.Resource) {
	s.t.Helper()
	if err := s.Server.Publish(set); err != nil {
		s.t.Fatal(err)
	}
}

func (s *realServer) stop() { s.grpc.Stop() }

func (s *realServer) until(ctx context.Context, ok func(xds.Client) bool) {
	s.t.Helper()
	for {
		proxies := s.Clients()
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
func (s *realServer) await(ctx context.Context, set []resource.Resource) {
	s.t.Helper()
	all := map[resource.Ref]string{}
	for _, r := range set {
		all[r.Ref] = version(s.t, r)
	}
	s.until(ctx, func(p xds.Client) bool { return p.Holds(all) })
}
