//go:build real

package xds_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreams "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/test/fleet"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// TestRealEnvoy takes one Envoy through a start, a switch of weights, a refused
// route, a changed cluster, a removed one, and a restart of the server.
func TestRealEnvoy(t *testing.T) {
	for name, api := range map[string]core.ApiConfigSource_ApiType{"delta": core.ApiConfigSource_DELTA_GRPC, "state of the world": core.ApiConfigSource_GRPC} {
		t.Run(name, func(t *testing.T) { realEnvoy(t, api) })
	}
}

func realEnvoy(t *testing.T, api core.ApiConfigSource_ApiType) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	front := free(t)
	e := &edge{t: t, ctx: ctx, front: front, blue: backend(t, "blue"), green: backend(t, "green")}
	server := serveReal(t, "127.0.0.1:0")
	at := server.addr
	e.startEnvoy(api, at)

	set := e.set(100, 0, 1)
	server.Publish(set)
	server.await(ctx, set)
	e.get("blue")
	held := e.hold() // a connection that stays open through all that follows

	set = e.set(0, 100, 1)
	began := time.Now()
	server.Publish(set)
	server.await(ctx, set)
	t.Logf("switch of weights acknowledged after %v", time.Since(began))
	for range 20 {
		e.get("green")
	}

	// A weight sum of zero is refused, shown, and changes nothing.
	server.Publish(e.set(0, 0, 1))
	server.until(ctx, func(p xds.Client) bool { return len(p.Nacks) == 1 && p.NackCount == 1 })
	e.get("green")
	server.Publish(set)
	server.until(ctx, func(p xds.Client) bool { return len(p.Nacks) == 0 })

	// A changed cluster warms at once, because its endpoints follow: the
	// acknowledgement of a cluster is withheld while it warms.
	set = e.set(0, 100, 2)
	began = time.Now()
	server.Publish(set)
	server.await(ctx, set)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a changed cluster took %v to warm", took)
	} else {
		t.Logf("changed clusters acknowledged after %v", took)
	}
	e.get("green")

	// The same set from another process: nothing is sent.
	before := e.updates()
	server.stop()
	server = serveReal(t, at)
	server.Publish(set)
	server.await(ctx, set)
	e.get("green")
	if after := e.updates(); api == core.ApiConfigSource_DELTA_GRPC && after != before {
		t.Errorf("after the restart Envoy was sent something:\nbefore %s\nafter  %s", before, after)
	}
	// A process that knows less takes nothing away.
	server.stop()
	server = serveReal(t, at)
	server.Publish(nil)
	server.until(ctx, func(p xds.Client) bool { return p.Connected && len(p.Acknowledged) >= 3 })
	e.get("green")
	held.alive()
}

// edge is one Envoy between two backends.
type edge struct {
	t           *testing.T
	ctx         context.Context
	front       netip.AddrPort
	admin       netip.AddrPort
	blue, green netip.AddrPort
}

func (e *edge) startEnvoy(api core.ApiConfigSource_ApiType, xdsAddr string) {
	path, err := fleet.EnvoyPath()
	if err != nil {
		e.t.Fatal(err)
	}
	e.admin = free(e.t)
	text, err := protojson.Marshal(e.bootstrap(api, netip.MustParseAddrPort(xdsAddr)))
	if err != nil {
		e.t.Fatal(err)
	}
	file := filepath.Join(e.t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		e.t.Fatal(err)
	}
	p, err := fleet.Start("edge-1", "", path, "-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--drain-time-s", "5")
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		p.Kill()
		if e.t.Failed() {
			e.t.Log(p.Log())
		}
	})
	if err := p.Await(e.ctx, fleet.Listening(e.admin)); err != nil {
		e.t.Fatal(err)
	}
}

func ads() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion: core.ApiVersion_V3, InitialFetchTimeout: durationpb.New(5 * time.Second),
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}

func (e *edge) bootstrap(api core.ApiConfigSource_ApiType, server netip.AddrPort) *bootstrap.Bootstrap {
	return &bootstrap.Bootstrap{
		Node:  &core.Node{Id: "edge-1", Cluster: "edge"},
		Admin: &bootstrap.Admin{Address: address(e.admin)},
		DynamicResources: &bootstrap.Bootstrap_DynamicResources{
			LdsConfig: ads(), CdsConfig: ads(),
			AdsConfig: &core.ApiConfigSource{
				ApiType: api, TransportApiVersion: core.ApiVersion_V3, SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*core.GrpcService{{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{EnvoyGrpc: &core.GrpcService_EnvoyGrpc{
					ClusterName: "xds", RetryPolicy: &core.RetryPolicy{RetryBackOff: &core.BackoffStrategy{
						BaseInterval: durationpb.New(50 * time.Millisecond), MaxInterval: durationpb.New(200 * time.Millisecond),
					}},
				}}}},
			},
		},
		StaticResources: &bootstrap.Bootstrap_StaticResources{Clusters: []*cluster.Cluster{{
			Name:                 "xds",
			ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC},
			LoadAssignment:       load("xds", server),
			TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(&upstreams.HttpProtocolOptions{
				UpstreamProtocolOptions: &upstreams.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &upstreams.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &upstreams.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &core.Http2ProtocolOptions{}},
				}},
			})},
		}}},
	}
}

// set is the whole world with these weights; generation changes the clusters.
func (e *edge) set(blue, green uint32, generation int64) []resource.Resource {
	var set []resource.Resource
	add := func(name string, m proto.Message, after ...resource.Ref) {
		set = append(set, resource.New(name, m, after...))
	}
	for name, addr := range map[string]netip.AddrPort{"blue": e.blue, "green": e.green} {
		add(name, &cluster.Cluster{
			Name: name, ConnectTimeout: durationpb.New(time.Duration(generation) * time.Second),
			ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
			EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: ads()},
		})
		add(name, load(name, addr))
	}
	add("web", &route.RouteConfiguration{Name: "web", VirtualHosts: []*route.VirtualHost{{
		Name: "web", Domains: []string{"*"},
		Routes: []*route.Route{{
			Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}},
			Action: &route.Route_Route{Route: &route.RouteAction{Timeout: durationpb.New(0), ClusterSpecifier: &route.RouteAction_WeightedClusters{
				WeightedClusters: &route.WeightedCluster{Clusters: []*route.WeightedCluster_ClusterWeight{
					{Name: "green", Weight: wrapperspb.UInt32(green)}, {Name: "blue", Weight: wrapperspb.UInt32(blue)},
				}},
			}}},
		}},
	}}}, ref(cds, "blue"), ref(cds, "green"))
	add("web", &listener.Listener{Name: "web", Address: address(e.front), FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{{
		Name: "hcm", ConfigType: &listener.Filter_TypedConfig{TypedConfig: pack(&hcm.HttpConnectionManager{
			StatPrefix:     "web",
			RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{RouteConfigName: "web", ConfigSource: ads()}},
			HttpFilters:    []*hcm.HttpFilter{{Name: "router", ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: pack(&router.Router{})}}},
		})},
	}}}}})
	return set
}

// get makes a request on a new connection and checks who answers; the listener
// may still be on its way.
func (e *edge) get(want string) {
	e.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		body, err := fetch(e.ctx, client, "http://"+e.front.String()+"/")
		if errors.As(err, new(*net.OpError)) && e.ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err != nil || body != want {
			e.t.Fatalf("answered by %q (%v), want %s", body, err, want)
		}
		return
	}
}

func fetch(ctx context.Context, client *http.Client, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// updates counts what Envoy was sent of each kind.
func (e *edge) updates() string {
	text, err := fetch(e.ctx, http.DefaultClient, "http://"+e.admin.String()+"/stats?format=json&filter=(update_success|update_rejected|update_attempt_none)$")
	if err != nil {
		e.t.Fatal(err)
	}
	var stats struct {
		Stats []struct {
			Name  string
			Value uint64
		}
	}
	if err := json.Unmarshal([]byte(text), &stats); err != nil {
		e.t.Fatal(err)
	}
	return fmt.Sprint(stats.Stats)
}

// streaming is a response that goes on for ever.
type streaming struct {
	t     *testing.T
	lines *bufio.Reader
}

func (e *edge) hold() streaming {
	r, err := http.NewRequestWithContext(e.ctx, http.MethodGet, "http://"+e.front.String()+"/stream", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { resp.Body.Close() })
	s := streaming{e.t, bufio.NewReader(resp.Body)}
	s.alive()
	return s
}

// alive reads to the newest line, past what has piled up.
func (s streaming) alive() {
	s.t.Helper()
	for after := time.Now(); ; {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the held connection ended: %v", err)
		}
		if at, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(line)); err == nil && at.After(after) {
			return
		}
	}
}

// backend answers with its name, and on /stream with the time for ever.
func backend(t *testing.T, name string) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream" {
			_, _ = io.WriteString(w, name)
			return
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := fmt.Fprintln(w, time.Now().Format(time.RFC3339Nano)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

func load(name string, addr netip.AddrPort) *endpoint.ClusterLoadAssignment {
	return &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: []*endpoint.LbEndpoint{{
		HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: address(addr)}},
	}}}}}
}

func address(a netip.AddrPort) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

func pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

func free(t *testing.T) netip.AddrPort {
	a, err := fleet.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return a
}
