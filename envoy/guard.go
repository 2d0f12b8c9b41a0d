package envoy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// May says what is proven about connections. The zero value proves nothing, so
// it allows no removal.
type May struct {
	// Remove holds the services that are proven empty.
	Remove map[discovery.Service]bool
	// Holds reports whether the endpoint of a cluster (see ClusterName) may still
	// hold connections; nil: every one may.
	Holds func(cluster string, addr netip.AddrPort) bool
}

// Rule names what a Refusal is about, for machines.
type Rule string

const (
	ListenerChanged  Rule = "listener_changed"
	ListenerRemoved  Rule = "listener_removed"
	ClusterRemoved   Rule = "cluster_removed"
	ClusterCloses    Rule = "cluster_closes"
	EndpointChanged  Rule = "endpoint_changed"
	EndpointRemoved  Rule = "endpoint_removed"
	EndpointUnfit    Rule = "endpoint_unfit"
	EndpointsMissing Rule = "endpoints_missing"
	UnknownCluster   Rule = "unknown_cluster"
	NoWeight         Rule = "no_weight"
	LimitUnfit       Rule = "limit_unfit"
	Invalid          Rule = "invalid"
	Twice            Rule = "twice"
)

// Refusal is one reason why a set must not be published. Text is one sentence
// with the way out.
type Refusal struct {
	Rule Rule
	Ref  resource.Ref
	// Service is whose resource it is; empty when services share it.
	Service discovery.Service
	Text    string
}

// Safe is the publish guard: it returns every reason why the proxies, which hold
// published, must not be told next; none means that telling them ends no
// established connection. The order in which next is told (see Resource.After)
// is kept by the one who tells. A message that is published already is not validated
// again, nor, where the same names are published as before, what it refers to. On a
// Refusal nothing of next is published; the caller may build again with the last good
// wish of the Services that are named.
func Safe(published, next []resource.Resource, may May) []Refusal {
	g := guard{next: next, may: may}
	named := slices.EqualFunc(published, next, func(was, now resource.Resource) bool { return was.Ref == now.Ref })
	same := func(i int) bool { return named && published[i].Message == next[i].Message }
	var before map[resource.Ref]*resource.Resource
	if !named {
		before = index(published)
	}
	for i, r := range next {
		if same(i) {
			continue
		}
		if !named && g.after(r.Ref) != &next[i] {
			g.refuse(Twice, r, "is there twice; publish it once")
		}
		if was := before[r.Ref]; was == nil || was.Message != r.Message {
			g.valid(r)
		}
		if r.Type == ClusterType {
			g.endpointed(r)
		}
		g.reaches(r)
	}
	for i := range published {
		if same(i) {
			continue
		}
		was := published[i]
		var now *resource.Resource
		if named {
			now = &next[i]
		} else {
			now = g.after(was.Ref)
		}
		switch was.Type {
		case ListenerType:
			g.listener(was, now)
		case ClusterType:
			if now == nil && !may.Remove[serviceOf(was)] {
				g.refuse(ClusterRemoved, was, "would be removed while its service may still hold connections; retire the service and wait until it is empty")
			}
		case EndpointType:
			g.endpoints(was, now)
		}
	}
	return g.refusals
}

type guard struct {
	next     []resource.Resource
	may      May
	refusals []Refusal
	indexed  map[resource.Ref]*resource.Resource // next, once one of it is looked for
}

// after is what of that name is in next; nil: nothing is.
func (g *guard) after(ref resource.Ref) *resource.Resource {
	if g.indexed == nil {
		g.indexed = index(g.next)
	}
	return g.indexed[ref]
}

func index(rs []resource.Resource) map[resource.Ref]*resource.Resource {
	m := make(map[resource.Ref]*resource.Resource, len(rs))
	for i := range rs {
		if m[rs[i].Ref] == nil {
			m[rs[i].Ref] = &rs[i]
		}
	}
	return m
}

func (g *guard) refuse(rule Rule, r resource.Resource, format string, args ...any) {
	g.refusals = append(g.refusals, Refusal{rule, r.Ref, serviceOf(r), fmt.Sprintf("%s %s", r.Ref, fmt.Sprintf(format, args...))})
}

// valid: the message keeps the protos' rules and is what its Ref says.
func (g *guard) valid(r resource.Resource) {
	if r.Message == nil || "type.googleapis.com/"+string(r.Message.ProtoReflect().Descriptor().FullName()) != r.Type {
		g.refuse(Invalid, r, "holds a %T; it must hold what its type says", r.Message)
		return
	}
	for _, m := range []proto.Message{r.Message, r.Instead} {
		if m == nil {
			continue
		}
		if err := validate(m); err != nil {
			g.refuse(Invalid, r, "breaks a rule of Envoy's (%v); correct the service or listener that it comes from", err)
		}
	}
	switch m := r.Message.(type) {
	case *clusterv3.Cluster:
		g.cluster(r, m)
	case *endpointv3.ClusterLoadAssignment:
		g.fit(r, m)
	case *runtimev3.Runtime:
		g.limits(r, m)
	}
}

// fit: every endpoint can be connected to, once, and is not declared dead.
func (g *guard) fit(r resource.Resource, m *endpointv3.ClusterLoadAssignment) {
	seen := map[netip.AddrPort]bool{}
	for _, l := range m.Endpoints {
		for _, e := range l.LbEndpoints {
			if h := e.HealthStatus; h != corev3.HealthStatus_HEALTHY && h != corev3.HealthStatus_DRAINING {
				g.refuse(EndpointUnfit, r, "has an endpoint that is %s; an endpoint is HEALTHY, or DRAINING to keep its connections", h)
			}
			if err := dialable(at(e)); err != nil {
				g.refuse(EndpointUnfit, r, "has an endpoint that Envoy refuses: %v", err)
			}
			if seen[at(e)] {
				g.refuse(EndpointUnfit, r, "names endpoint %s twice, and Envoy would take either; name it once", at(e))
			}
			seen[at(e)] = true
		}
	}
}

// cluster: nothing in it closes connections.
func (g *guard) cluster(r resource.Resource, m *clusterv3.Cluster) {
	if m.OutlierDetection != nil || m.CloseConnectionsOnHostHealthFailure || m.CommonLbConfig.GetCloseConnectionsOnHostSetChange() {
		g.refuse(ClusterCloses, r, "would close connections by itself; leave outlier detection and close_connections_on_* out")
	}
}

// endpointed: a cluster's endpoints come with it, or it would warm up for seconds and
// then serve nothing.
func (g *guard) endpointed(r resource.Resource) {
	if g.after(resource.Ref{Type: EndpointType, Name: r.Name}) == nil {
		g.refuse(EndpointsMissing, r, "comes without its endpoints; publish them with it, even if there are none")
	}
}

// reaches: every choice has weight and names clusters that are there. A cluster that is
// missing, and a lack of weight, is said once of each resource.
func (g *guard) reaches(r resource.Resource) {
	missing, weightless := map[string]bool{}, false
	for _, choice := range choices(r.Message) {
		total := uint64(0)
		for _, t := range choice {
			total += t.weight
			if g.after(resource.Ref{Type: ClusterType, Name: t.cluster}) == nil && !missing[t.cluster] {
				missing[t.cluster] = true
				g.refuse(UnknownCluster, r, "sends connections to cluster %s, which is not there; publish the cluster too, or take the route away", t.cluster)
			}
		}
		if total == 0 && !weightless {
			weightless = true
			g.refuse(NoWeight, r, "has a route whose weights sum to 0; give one colour a weight, or retire the service")
		}
	}
}

func (g *guard) listener(was resource.Resource, now *resource.Resource) {
	switch {
	case now == nil:
		g.refuse(ListenerRemoved, was, "would be removed, which ends its established connections; put it back into the configuration")
	case was.Message != now.Message && !proto.Equal(was.Message, now.Message):
		g.refuse(ListenerChanged, was, "would be changed, which ends its established connections; put it back as it was and add another listener with another name")
	}
}

// endpoints: who stays keeps its identity, who goes is empty.
func (g *guard) endpoints(was resource.Resource, now *resource.Resource) {
	if now != nil && (was.Message == now.Message || proto.Equal(was.Message, now.Message)) {
		return
	}
	old := placed(was.Message)
	stays := map[netip.AddrPort]place{}
	if now != nil {
		stays = placed(now.Message)
	}
	for _, addr := range slices.SortedFunc(maps.Keys(old), netip.AddrPort.Compare) {
		after, ok := stays[addr]
		switch {
		case ok && !old[addr].same(after):
			g.refuse(EndpointChanged, was, "would describe endpoint %s otherwise than before, and Envoy would lose sight of its connections; keep its locality and host name", addr)
		case ok, g.may.Remove[serviceOf(was)]:
		case g.may.Holds == nil || g.may.Holds(was.Name, addr):
			g.refuse(EndpointRemoved, was, "would lose endpoint %s, which may still hold connections; keep it as draining until it is empty", addr)
		}
	}
}

// place is an endpoint where it stands.
type place struct {
	in *endpointv3.LocalityLbEndpoints
	of *endpointv3.LbEndpoint
}

// placed are the endpoints by address.
func placed(m proto.Message) map[netip.AddrPort]place {
	cla, _ := m.(*endpointv3.ClusterLoadAssignment)
	all := map[netip.AddrPort]place{}
	for _, l := range cla.GetEndpoints() {
		for _, e := range l.LbEndpoints {
			all[at(e)] = place{l, e}
		}
	}
	return all
}

// same reports whether Envoy takes both for one host: all by which it tells hosts apart,
// everything but health and metadata, is equal.
func (p place) same(other place) bool {
	return p.in.Priority == other.in.Priority && proto.Equal(p.in.Locality, other.in.Locality) && proto.Equal(host(p.of), host(other.of))
}

// host is an endpoint without health and metadata.
func host(e *endpointv3.LbEndpoint) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{HostIdentifier: e.HostIdentifier, LoadBalancingWeight: e.LoadBalancingWeight}
}

// at is where an endpoint is; the zero AddrPort when it is no IP address.
func at(e *endpointv3.LbEndpoint) netip.AddrPort {
	a := e.GetEndpoint().GetAddress().GetSocketAddress()
	ip, err := netip.ParseAddr(a.GetAddress())
	if err != nil || a.GetPortValue() > 65535 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, uint16(a.GetPortValue()))
}
