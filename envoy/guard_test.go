package envoy

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// set is a copy of the rollout world that a test may spoil.
type set []resource.Resource

func fresh() set {
	w := worlds()["rollout"]
	rs, _ := Build(w.config, w.wishes)
	return rs
}

func (s set) get(t, name string) proto.Message {
	for _, r := range s {
		if r.Ref == (resource.Ref{Type: t, Name: name}) {
			return r.Message
		}
	}
	panic(name)
}

func (s *set) drop(t, name string) {
	*s = slices.DeleteFunc(*s, func(r resource.Resource) bool { return r.Ref == resource.Ref{Type: t, Name: name} })
}

func (s set) endpoints(name string) *endpointv3.LocalityLbEndpoints {
	return s.get(EndpointType, name).(*endpointv3.ClusterLoadAssignment).Endpoints[0]
}

func (s set) limits() map[string]*structpb.Value {
	return s.get(RuntimeType, RuntimeName).(*runtimev3.Runtime).Layer.Fields
}

func (s set) weights() []*routev3.WeightedCluster_ClusterWeight {
	return s.get(RouteType, "web").(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0].GetRoute().GetWeightedClusters().Clusters
}

var nobody = May{Holds: func(string, netip.AddrPort) bool { return false }}

// only says that one endpoint of chat-blue holds connections, and no other.
func only(at string) May {
	return May{Holds: func(cluster string, a netip.AddrPort) bool { return cluster == "chat-blue" && a == addr(at) }}
}

func TestSafe(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*set)
		may   May
		want  []Rule
	}{
		"nothing changed": {func(*set) {}, May{}, nil},
		"weights":         {func(s *set) { s.weights()[0].Weight.Value, s.weights()[1].Weight.Value = 10_000, 0 }, May{}, nil},
		"health":          {func(s *set) { s.endpoints("chat-blue").LbEndpoints[0].HealthStatus = corev3.HealthStatus_DRAINING }, May{}, nil},
		"cluster changed": {func(s *set) { s.get(ClusterType, "chat-blue").(*clusterv3.Cluster).ConnectTimeout.Seconds = 2 }, May{}, nil},
		"new endpoint": {func(s *set) {
			e := proto.CloneOf(s.endpoints("chat-blue").LbEndpoints[0])
			e.GetEndpoint().GetAddress().GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: 1}
			s.endpoints("chat-blue").LbEndpoints = append(s.endpoints("chat-blue").LbEndpoints, e)
		}, May{}, nil},
		"new cluster": {func(s *set) {
			svc := edge.Service{Name: "new", Listener: "web"}
			e, _ := endpoints("new", discovery.Blue, nil)
			*s = append(*s, cluster(svc, discovery.Blue), e)
		}, May{}, nil},
		"empty endpoint removed":   {func(s *set) { s.endpoints("chat-blue").LbEndpoints = s.endpoints("chat-blue").LbEndpoints[:1] }, nobody, nil},
		"the other endpoint holds": {func(s *set) { s.endpoints("chat-blue").LbEndpoints = s.endpoints("chat-blue").LbEndpoints[:1] }, only("10.0.0.1:9001"), nil},
		"this endpoint holds":      {func(s *set) { s.endpoints("chat-blue").LbEndpoints = s.endpoints("chat-blue").LbEndpoints[:1] }, only("10.0.0.2:9001"), []Rule{EndpointRemoved}},
		"empty service removed": {func(s *set) {
			for _, c := range discovery.Colours {
				s.drop(ClusterType, ClusterName("xmpp", c))
				s.drop(EndpointType, ClusterName("xmpp", c))
			}
			s.drop(ExtensionType, "raw")
		}, May{Remove: map[discovery.Service]bool{"xmpp": true}}, nil},

		"limits": {func(s *set) {
			s.limits()["circuit_breakers.chat-blue.default.max_requests"] = structpb.NewNumberValue(1)
			delete(s.limits(), "circuit_breakers.chat-green.default.max_requests")
		}, May{}, nil},
		"no limits any more": {func(s *set) { s.drop(RuntimeType, RuntimeName) }, May{}, nil},
		"limit of 0": {func(s *set) {
			s.limits()["circuit_breakers.chat-blue.default.max_requests"] = structpb.NewNumberValue(0)
		}, nobody, []Rule{LimitUnfit}},
		"limit below 0": {func(s *set) {
			s.limits()["circuit_breakers.xmpp-blue.default.max_connections"] = structpb.NewNumberValue(-1)
		}, nobody, []Rule{LimitUnfit}},
		"limit of text": {func(s *set) {
			s.limits()["circuit_breakers.xmpp-blue.default.max_connections"] = structpb.NewStringValue("9")
		}, nobody, []Rule{LimitUnfit}},
		"limit of a half": {func(s *set) {
			s.limits()["circuit_breakers.xmpp-blue.default.max_connections"] = structpb.NewNumberValue(1.5)
		}, nobody, []Rule{LimitUnfit}},
		"limit of NaN": {func(s *set) {
			s.limits()["circuit_breakers.xmpp-blue.default.max_connections"] = structpb.NewNumberValue(math.NaN())
		}, nobody, []Rule{LimitUnfit}},
		"limit of all": {func(s *set) {
			s.limits()["circuit_breakers.xmpp-blue.default.max_connections"] = structpb.NewNumberValue(math.Inf(1))
		}, nobody, []Rule{LimitUnfit}},
		"other runtime": {func(s *set) { s.limits()["overload.global_downstream_max_connections"] = structpb.NewNumberValue(9) }, nobody, []Rule{LimitUnfit}},
		"hanging limit": {func(s *set) {
			s.limits()["circuit_breakers.chat-blue.default.max_pending_requests"] = structpb.NewNumberValue(9)
		}, nobody, []Rule{LimitUnfit}},

		"listener removed": {func(s *set) { s.drop(ListenerType, "web") }, nobody, []Rule{ListenerRemoved}},
		"listener changed": {func(s *set) { s.get(ListenerType, "web").(*listenerv3.Listener).StatPrefix = "x" }, nobody, []Rule{ListenerChanged}},
		"filter changed": {func(s *set) {
			s.get(ListenerType, "web").(*listenerv3.Listener).FilterChains[0].Filters[0].GetTypedConfig().Value = nil
		}, nobody, []Rule{Invalid, ListenerChanged}},
		"cluster removed":            {func(s *set) { s.drop(ClusterType, "xmpp-blue") }, nobody, []Rule{ClusterRemoved}},
		"another service empty":      {func(s *set) { s.drop(ClusterType, "xmpp-blue") }, May{Remove: map[discovery.Service]bool{"chat": true}}, []Rule{ClusterRemoved}},
		"cluster removed with route": {func(s *set) { s.drop(ClusterType, "xmpp-green") }, nobody, []Rule{ClusterRemoved, UnknownCluster}},
		"cluster without endpoints":  {func(s *set) { s.drop(EndpointType, "chat-green") }, nobody, []Rule{EndpointsMissing}},
		"outlier detection": {func(s *set) {
			s.get(ClusterType, "chat-blue").(*clusterv3.Cluster).OutlierDetection = &clusterv3.OutlierDetection{}
		}, nobody, []Rule{ClusterCloses}},
		"closes on change": {func(s *set) {
			s.get(ClusterType, "chat-blue").(*clusterv3.Cluster).CommonLbConfig.CloseConnectionsOnHostSetChange = true
		}, nobody, []Rule{ClusterCloses}},
		"locality":           {func(s *set) { s.endpoints("chat-blue").Locality.Zone = "a" }, nobody, []Rule{EndpointChanged, EndpointChanged}},
		"priority":           {func(s *set) { s.endpoints("chat-green").Priority = 1 }, nobody, []Rule{EndpointChanged}},
		"host name":          {func(s *set) { s.endpoints("chat-green").LbEndpoints[0].GetEndpoint().Hostname = "x" }, nobody, []Rule{EndpointChanged}},
		"endpoint removed":   {func(s *set) { s.endpoints("chat-blue").LbEndpoints = s.endpoints("chat-blue").LbEndpoints[:1] }, May{}, []Rule{EndpointRemoved}},
		"endpoint unhealthy": {func(s *set) { s.endpoints("chat-green").LbEndpoints[0].HealthStatus = corev3.HealthStatus_UNHEALTHY }, nobody, []Rule{EndpointUnfit}},
		"endpoint by name": {func(s *set) {
			s.endpoints("chat-green").LbEndpoints[0].GetEndpoint().Address.GetSocketAddress().Address = "localhost"
		}, nobody, []Rule{EndpointUnfit}},
		"endpoint twice": {func(s *set) {
			l := s.endpoints("chat-green")
			l.LbEndpoints = append(l.LbEndpoints, l.LbEndpoints[0])
		}, nobody, []Rule{EndpointUnfit}},
		"weight of endpoint 0": {func(s *set) { s.endpoints("chat-green").LbEndpoints[0].LoadBalancingWeight.Value = 0 }, nobody, []Rule{EndpointChanged, Invalid}},
		"unknown cluster":      {func(s *set) { s.weights()[0].Name = "nowhere" }, nobody, []Rule{UnknownCluster}},
		"weights of 0":         {func(s *set) { s.weights()[0].Weight, s.weights()[1].Weight = nil, wrapperspb.UInt32(0) }, nobody, []Rule{NoWeight}},
		"tcp to nobody": {func(s *set) {
			s.get(ExtensionType, "raw").(*corev3.TypedExtensionConfig).TypedConfig = packed(&tcpv3.TcpProxy{StatPrefix: "x",
				ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: "nowhere"}})
		}, nobody, []Rule{UnknownCluster}},
		"twice":        {func(s *set) { *s = append(*s, (*s)[0]) }, nobody, []Rule{Twice}},
		"a lie":        {func(s *set) { (*s)[1].Type = RouteType }, nobody, []Rule{ClusterRemoved, Invalid, UnknownCluster}},
		"empty domain": {func(s *set) { s.get(RouteType, "web").(*routev3.RouteConfiguration).VirtualHosts[0].Domains = nil }, nobody, []Rule{Invalid}},
		"world is gone": {func(s *set) { *s = nil }, May{}, slices.Concat(slices.Repeat([]Rule{ClusterRemoved}, 8),
			slices.Repeat([]Rule{EndpointRemoved}, 8), slices.Repeat([]Rule{ListenerRemoved}, 2))},
	} {
		t.Run(name, func(t *testing.T) {
			next := fresh()
			c.spoil(&next)
			var got []Rule
			for _, r := range Safe(fresh(), next, c.may) {
				got = append(got, r.Rule)
				if !strings.HasPrefix(r.Text, r.Ref.String()) || !strings.ContainsAny(r.Text, ";,:") {
					t.Errorf("%q is no sentence with a way out", r.Text)
				}
				if (r.Ref.Type == ClusterType || r.Ref.Type == EndpointType) && r.Service == "" {
					t.Errorf("%s belongs to no service", r.Ref)
				}
			}
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("refused for %v, want %v: %v", got, c.want, Safe(fresh(), next, c.may))
			}
		})
	}
}

// Refusals come in a stable order, so that a log line does not change by itself.
func TestSafeIsStable(t *testing.T) {
	want := Safe(fresh(), nil, May{})
	for range 20 {
		if got := Safe(fresh(), nil, May{}); !slices.Equal(got, want) {
			t.Fatal("the order of refusals changes")
		}
	}
}

// The caller's way with a fault: the last good wish in its place passes again.
func TestLastGoodWish(t *testing.T) {
	w := worlds()["rollout"]
	published, _ := Build(w.config, w.wishes)
	bad := shuffled(rand.New(rand.NewPCG(1, 1)), w)
	bad.wishes["chat"] = wish(1, 1, nil, nil)
	next, errs := Build(bad.config, bad.wishes)
	if len(errs) != 1 || errs["chat"] == nil {
		t.Fatal(errs)
	}
	if refusals := Safe(published, next, nobody); len(refusals) != 2 || refusals[0].Service != "chat" {
		t.Errorf("its clusters are gone, and the guard says %v", refusals)
	}
	bad.wishes["chat"] = w.wishes["chat"]
	next, errs = Build(bad.config, bad.wishes)
	if refusals := Safe(published, next, May{}); len(errs) > 0 || len(refusals) > 0 {
		t.Error(errs, refusals)
	}
}

// TestHostIsWhole holds the guard's idea of a host to the proto: a field that comes to it
// has to be looked at.
func TestHostIsWhole(t *testing.T) {
	var names []string
	fields := (&endpointv3.LbEndpoint{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		names = append(names, string(fields.Get(i).Name()))
	}
	slices.Sort(names)
	if want := []string{"endpoint", "endpoint_name", "health_status", "load_balancing_weight", "metadata"}; !slices.Equal(names, want) {
		t.Errorf("an endpoint has %v, known are %v; see host", names, want)
	}
}
