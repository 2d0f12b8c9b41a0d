package reports_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sluice-proxy/sluice/xds/process/processtest"
	"github.com/sluice-proxy/sluice/xds/reports"
)

// world is a hub and what is needed to reach it, in a synctest bubble.
type world struct {
	*reports.Hub
	t    *testing.T
	lis  *bufconn.Listener
	logs *strings.Builder
}

// published is a hub that knows the clusters blue and green.
func published(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, lis: bufconn.Listen(1 << 20), logs: &strings.Builder{}}
	w.Hub = reports.New(reports.Options{Logger: slog.New(slog.NewTextHandler(w.logs, nil))})
	w.Follow("blue", "green")
	g := grpc.NewServer()
	w.Register(g)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(&processtest.Ports{Listener: w.lis}) })
	t.Cleanup(func() { g.Stop(); serving.Wait() })
	return w
}

func (w *world) dial() *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.lis.DialContext(ctx) }))
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

func (w *world) endpoint(addr netip.AddrPort) reports.EndpointLoad {
	return w.Load("blue").Endpoints[addr]
}
