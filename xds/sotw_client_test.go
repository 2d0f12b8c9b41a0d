package xds_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

// sotw is a client of the other protocol.
type sotw struct {
	t      *testing.T
	node   string
	conn   *grpc.ClientConn
	str    grpc.BidiStreamingClient[discovery.DiscoveryRequest, discovery.DiscoveryResponse]
	done   sync.WaitGroup
	stop   context.CancelFunc
	refuse func(typeURL, name string, n uint32) bool

	mu        sync.Mutex
	names     map[string][]string
	version   map[string]string // the last accepted
	said      []string
	responses int
}

func (w *world) sotw(node string) *sotw {
	c := &sotw{t: w.t, node: node, names: map[string][]string{}, version: map[string]string{}}
	c.connect(w)
	return c
}

func (c *sotw) connect(w *world) {
	c.conn = w.dial()
	ctx, stop := context.WithCancel(c.t.Context())
	str, err := discovery.NewAggregatedDiscoveryServiceClient(c.conn).StreamAggregatedResources(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	c.str, c.stop = str, stop
	c.done.Go(func() {
		for {
			m, err := str.Recv()
			if err != nil {
				return
			}
			c.take(m)
		}
	})
}

func (c *sotw) close() {
	c.stop()
	_ = c.conn.Close()
	c.done.Wait()
	synctest.Wait()
}

func (c *sotw) take(m *discovery.DiscoveryResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.responses++
	var items []string
	answer := &discovery.DiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce, ResourceNames: c.names[m.TypeUrl], VersionInfo: m.VersionInfo}
	for _, r := range m.Resources {
		name, n := content(c.t, m.TypeUrl, r.Value)
		items = append(items, fmt.Sprintf(" +%s:%d", name, n))
		if c.refuse != nil && c.refuse(m.TypeUrl, name, n) {
			answer.ErrorDetail = &rpc.Status{Message: "bad"}
			answer.VersionInfo = c.version[m.TypeUrl]
		}
	}
	slices.SortFunc(items, cmp.Compare)
	c.said = append(c.said, kinds[m.TypeUrl]+strings.Join(items, ""))
	c.version[m.TypeUrl] = answer.VersionInfo
	_ = c.str.Send(answer)
}

func (c *sotw) ask(typeURL string, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names[typeURL] = names
	_ = c.str.Send(&discovery.DiscoveryRequest{Node: &core.Node{Id: c.node}, TypeUrl: typeURL, ResourceNames: names, VersionInfo: c.version[typeURL]})
}

func (c *sotw) hears(want ...string) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.said, want) {
		c.t.Errorf("proxy %s heard\n  %s\nwant\n  %s", c.node, strings.Join(c.said, "\n  "), strings.Join(want, "\n  "))
	}
	c.said = nil
}
