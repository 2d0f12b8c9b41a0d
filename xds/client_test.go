package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/process/processtest"
	"github.com/sluice-proxy/sluice/xds/resource"
)

const (
	prefix = "type.googleapis.com/envoy.config."
	cds    = prefix + "cluster.v3.Cluster"
	eds    = prefix + "endpoint.v3.ClusterLoadAssignment"
	lds    = prefix + "listener.v3.Listener"
	rds    = prefix + "route.v3.RouteConfiguration"
)

func ref(typeURL, name string) resource.Ref { return resource.Ref{Type: typeURL, Name: name} }

// res builds a resource whose content says n.
func res(t testing.TB, typeURL, name string, n uint32, after ...resource.Ref) resource.Resource {
	t.Helper()
	var m proto.Message
	switch typeURL {
	case cds:
		m = &cluster.Cluster{Name: name, AltStatName: fmt.Sprint(n)}
	case eds:
		m = &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{Priority: n}}}
	case lds:
		m = &listener.Listener{Name: name, StatPrefix: fmt.Sprint(n)}
	case rds:
		m = &route.RouteConfiguration{Name: name, MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(n)}
	}
	return resource.New(name, m, after...)
}

// version is that of a resource as it is published.
func version(t testing.TB, r resource.Resource) string {
	t.Helper()
	_, v, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// content reads n back.
func content(t testing.TB, typeURL string, body []byte) (string, uint32) {
	var err error
	var n uint32
	var name string
	switch typeURL {
	case cds:
		m := &cluster.Cluster{}
		err = proto.Unmarshal(body, m)
		_, _ = fmt.Sscan(m.AltStatName, &n)
		name = m.Name
	case eds:
		m := &endpoint.ClusterLoadAssignment{}
		err = proto.Unmarshal(body, m)
		n, name = m.Endpoints[0].Priority, m.ClusterName
	case lds:
		m := &listener.Listener{}
		err = proto.Unmarshal(body, m)
		_, _ = fmt.Sscan(m.StatPrefix, &n)
		name = m.Name
	case rds:
		m := &route.RouteConfiguration{}
		err = proto.Unmarshal(body, m)
		n, name = m.MaxDirectResponseBodySizeBytes.GetValue(), m.Name
	}
	if err != nil {
		t.Error(err)
	}
	return name, n
}

var kinds = map[string]string{cds: "CDS", eds: "EDS", lds: "LDS", rds: "RDS"}

// world is a server and what is needed to reach it, in a synctest bubble.
type world struct {
	*xds.Server
	t    *testing.T
	lis  *bufconn.Listener
	grpc *grpc.Server
	logs *strings.Builder
}

func options() xds.Options {
	return xds.Options{
		Logger:    slog.New(slog.DiscardHandler),
		WriteOnce: []string{lds}, Extensions: []string{"door", "window"}, OnePerResponse: []string{rds, eds}, Resend: map[string]string{cds: eds},
	}
}

// start runs a server; stop it before the bubble ends.
func start(t *testing.T, set ...resource.Resource) *world {
	t.Helper()
	w := &world{t: t, lis: bufconn.Listen(1 << 20), logs: &strings.Builder{}}
	o := options()
	o.Logger = slog.New(slog.NewTextHandler(w.logs, nil))
	w.Server, w.grpc = xds.New(o), grpc.NewServer(xds.ServerOptions()...)
	w.Register(w.grpc)
	var serving sync.WaitGroup
	serving.Go(func() { _ = w.grpc.Serve(&processtest.Ports{Listener: w.lis}) })
	t.Cleanup(func() { w.grpc.Stop(); serving.Wait() })
	if len(set) > 0 {
		w.Publish(set)
	}
	return w
}

func (w *world) Publish(set []resource.Resource) {
	w.t.Helper()
	if err := w.Server.Publish(set); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) dial() *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.lis.DialContext(ctx) }))
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

func (w *world) proxy(node string) xds.Client {
	w.t.Helper()
	for _, p := range w.Clients() {
		if p.Node == node {
			return p
		}
	}
	w.t.Fatalf("no proxy %s", node)
	return xds.Client{}
}

// deltaStream is the client's end of any delta service.
type deltaStream interface {
	Send(*discovery.DeltaDiscoveryRequest) error
	Recv() (*discovery.DeltaDiscoveryResponse, error)
}

// client speaks the delta protocol as Envoy does: it acknowledges, remembers what
// it holds, and says so when it connects again.
type client struct {
	t    *testing.T
	node string
	conn *grpc.ClientConn
	str  deltaStream
	done sync.WaitGroup
	stop context.CancelFunc

	mu        sync.Mutex
	said      []string                     // responses, as one line each
	held      map[string]map[string]string // type → name → version
	refuse    func(typeURL, name string, n uint32) bool
	has       []*core.Extension
	hold      map[string]bool // types whose answers are kept back
	kept      []*discovery.DeltaDiscoveryRequest
	responses int
	err       error
}

func (w *world) client(node string) *client {
	c := &client{t: w.t, node: node, held: map[string]map[string]string{}, hold: map[string]bool{}}
	c.connect(w)
	return c
}

// connect opens an aggregated stream.
func (c *client) connect(w *world) {
	c.conn = w.dial()
	c.open(aggregated)
}

func aggregated(ctx context.Context, conn *grpc.ClientConn) (deltaStream, error) {
	return discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
}

// open opens a stream on the connection that there is.
func (c *client) open(open func(context.Context, *grpc.ClientConn) (deltaStream, error)) {
	ctx, stop := context.WithCancel(c.t.Context())
	str, err := open(ctx, c.conn)
	if err != nil {
		c.t.Fatal(err)
	}
	c.str, c.stop, c.err = str, stop, nil
	c.done.Go(func() {
		for {
			m, err := str.Recv()
			if err != nil {
				c.mu.Lock()
				c.err = err
				c.mu.Unlock()
				return
			}
			c.take(str, m)
		}
	})
}

func (c *client) close() {
	c.stop()
	_ = c.conn.Close()
	c.done.Wait()
	synctest.Wait()
}

func (c *client) take(str deltaStream, m *discovery.DeltaDiscoveryResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.responses++
	answer := &discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}
	var line strings.Builder
	line.WriteString(kinds[m.TypeUrl])
	if c.held[m.TypeUrl] == nil {
		c.held[m.TypeUrl] = map[string]string{}
	}
	for _, r := range m.Resources {
		_, n := content(c.t, m.TypeUrl, r.Resource.Value)
		fmt.Fprintf(&line, " +%s:%d", r.Name, n)
		if c.refuse != nil && c.refuse(m.TypeUrl, r.Name, n) {
			answer.ErrorDetail = &rpc.Status{Code: 3, Message: fmt.Sprintf("%s:%d is bad", r.Name, n)}
		}
	}
	if answer.ErrorDetail == nil {
		for _, r := range m.Resources {
			c.held[m.TypeUrl][r.Name] = r.Version
		}
	}
	for _, name := range m.RemovedResources {
		line.WriteString(" -" + name)
		delete(c.held[m.TypeUrl], name)
	}
	c.said = append(c.said, line.String())
	if c.hold[m.TypeUrl] {
		c.kept = append(c.kept, answer)
		return
	}
	_ = str.Send(answer)
}

// ask subscribes, the first time with what is held.
func (c *client) ask(typeURL string, names ...string) {
	c.mu.Lock()
	held := maps.Clone(c.held[typeURL])
	c.mu.Unlock()
	c.send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: c.node, Cluster: "edge", Extensions: c.has}, TypeUrl: typeURL,
		ResourceNamesSubscribe: names, InitialResourceVersions: held,
	})
}

func (c *client) unsubscribe(typeURL string, names ...string) {
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesUnsubscribe: names})
}

func (c *client) send(r *discovery.DeltaDiscoveryRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.str.Send(r); err != nil {
		c.t.Error(err)
	}
}

// release sends the answers that were kept back.
func (c *client) release(typeURL string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold[typeURL] = false
	for _, a := range c.kept {
		if a.TypeUrl == typeURL {
			_ = c.str.Send(a)
		}
	}
	c.kept = slices.DeleteFunc(c.kept, func(a *discovery.DeltaDiscoveryRequest) bool { return a.TypeUrl == typeURL })
}

// hears checks what has arrived since the last time, in order.
func (c *client) hears(want ...string) {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.said, want) {
		c.t.Errorf("proxy %s heard\n  %s\nwant\n  %s", c.node, strings.Join(c.said, "\n  "), strings.Join(want, "\n  "))
	}
	c.said = nil
}
