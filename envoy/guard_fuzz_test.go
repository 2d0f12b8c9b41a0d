package envoy

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// randomWorld makes configurations and wishes of which most are right and some
// are not, out of few names, so that two of them have much in common.
func randomWorld(r *rand.Rand) setting {
	w := setting{wishes: desired.Wishes{}}
	for i, name := range []string{"web", "raw", "more"} {
		if r.IntN(8) > 0 {
			l := edge.Listener{Name: name, Protocol: edge.HTTP,
				Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(80+i+r.IntN(20)/19))}
			if name == "raw" {
				l.Protocol = edge.TCP
			}
			w.config.Listeners = append(w.config.Listeners, l)
		}
	}
	for _, name := range []discovery.Service{"a", "b", "c-d", "line"} {
		s := edge.Service{Name: name, Listener: "web", Prefix: "/" + string(name), HTTP2: r.IntN(4) == 0}
		if name == "line" {
			s = edge.Service{Name: name, Listener: "raw", Protocol: edge.TCP}
		}
		if r.IntN(10) == 0 {
			s.Prefix = "/a"
		}
		if r.IntN(3) == 0 {
			s.StormGuard = units.Rate(r.IntN(1000))
		}
		if r.IntN(8) > 0 {
			w.config.Services = append(w.config.Services, s)
		}
		if r.IntN(10) > 0 {
			w.wishes[name] = randomWish(r)
		}
	}
	return shuffled(r, w)
}

// next is w with a little changed, or another world.
func next(r *rand.Rand, w setting) setting {
	w = shuffled(r, w)
	other := randomWorld(r)
	switch r.IntN(6) {
	case 0:
		return other
	case 1:
		maps.Copy(w.wishes, other.wishes)
	case 2:
		names := slices.Sorted(maps.Keys(w.wishes))
		for _, s := range names[:min(1, len(names))] {
			w.wishes[s] = randomWish(r)
		}
	}
	return w
}

func randomWish(r *rand.Rand) desired.Wish {
	share := units.Share(r.IntN(3) * 5000)
	w := wish(units.Whole-share, share, nil, nil)
	if r.IntN(10) == 0 {
		w.Weights[discovery.Blue] = units.Share(r.IntN(20_000) - 10_000)
	}
	for _, c := range discovery.Colours {
		for i := range r.IntN(5) {
			e := desired.Endpoint{ID: discovery.InstanceID(fmt.Sprint(i)), Draining: r.IntN(2) == 0}
			e.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(6))}), 80)
			if r.IntN(30) == 0 {
				e.Addr = netip.AddrPort{}
			}
			w.Endpoints[c] = append(w.Endpoints[c], e)
		}
	}
	if r.IntN(2) == 0 {
		w.Proxies = r.IntN(4)
		w.Limits = map[discovery.Colour]int{discovery.Blue: r.IntN(50) - 1, discovery.Green: 1 << r.IntN(30)}
	}
	w.Retired = r.IntN(8) == 0
	w.Gone = w.Retired && r.IntN(2) == 0
	return w
}

// spoil does to a set what a wrong builder could.
func spoil(r *rand.Rand, rs []resource.Resource) []resource.Resource {
	kind := Types[r.IntN(len(Types))]
	i := r.IntN(len(rs) + 1)
	for i < len(rs) && rs[i].Type != kind {
		i++
	}
	if i == len(rs) {
		return rs
	}
	switch m := rs[i].Message.(type) {
	case *runtimev3.Runtime:
		m.Layer.Fields["circuit_breakers.a-blue.default.max_requests"] = structpb.NewNumberValue(float64(r.IntN(3) - 1))
	case *clusterv3.Cluster:
		if r.IntN(2) == 0 {
			return slices.Delete(rs, i, i+1)
		}
		m.CommonLbConfig.CloseConnectionsOnHostSetChange = true
	case *endpointv3.ClusterLoadAssignment:
		if len(m.Endpoints) == 0 {
			return rs
		}
		switch l := m.Endpoints[0]; r.IntN(4) {
		case 0:
			l.Locality = &corev3.Locality{Zone: "z"}
		case 1:
			l.LbEndpoints[0].GetEndpoint().Hostname = "h"
		case 2:
			l.LbEndpoints = l.LbEndpoints[1:]
		default:
			return slices.Delete(rs, i, i+1)
		}
	case *listenerv3.Listener:
		if r.IntN(2) == 0 {
			return slices.Delete(rs, i, i+1)
		}
		m.FilterChains[0].Filters[0].Name += "x"
	case *routev3.RouteConfiguration:
		for _, v := range m.VirtualHosts {
			for _, route := range v.Routes {
				for _, c := range route.GetRoute().GetWeightedClusters().Clusters {
					if r.IntN(2) == 0 {
						c.Weight.Value = 0
					} else if r.IntN(6) == 0 {
						c.Name += "x"
					}
				}
			}
		}
	}
	return rs
}

// forbidden looks for what must never be published, in another way than the
// guard does.
func forbidden(published, next []resource.Resource, may May) error {
	find := func(rs []resource.Resource, t, name string) proto.Message {
		for _, r := range rs {
			if r.Type == t && r.Name == name {
				return r.Message
			}
		}
		return nil
	}
	for _, r := range published {
		now := find(next, r.Type, r.Name)
		switch {
		case r.Type == ListenerType && (now == nil || !bytes.Equal(must(proto.Marshal(now)), must(proto.Marshal(r.Message)))):
			return fmt.Errorf("listener %s changed", r.Name)
		case r.Type == ClusterType && now == nil && !may.Remove[discovery.Service(r.Owner)]:
			return fmt.Errorf("cluster %s lost", r.Name)
		case r.Type == EndpointType && !may.Remove[discovery.Service(r.Owner)]:
			after := flat(now)
			for at, before := range flat(r.Message) {
				if got, stays := after[at]; stays && got != before || !stays && may.Holds(r.Name, at) {
					return fmt.Errorf("endpoint %s of %s was %q, is %q", at, r.Name, before, got)
				}
			}
		}
	}
	for _, r := range next {
		if m, ok := r.Message.(*runtimev3.Runtime); ok {
			for key, v := range m.Layer.Fields {
				if v.GetNumberValue() < 1 {
					return fmt.Errorf("%s is %v", key, v)
				}
			}
		}
		m, ok := r.Message.(*routev3.RouteConfiguration)
		if !ok {
			continue
		}
		for _, v := range m.VirtualHosts {
			for _, route := range v.Routes {
				sum := 0
				for _, c := range route.GetRoute().GetWeightedClusters().Clusters {
					sum += int(c.Weight.Value)
					if find(next, ClusterType, c.Name) == nil {
						return fmt.Errorf("route to %s, which is not there", c.Name)
					}
				}
				if sum == 0 {
					return fmt.Errorf("weights of %s sum to 0", route.Name)
				}
			}
		}
	}
	return nil
}

// flat is the zone and host name of each endpoint.
func flat(m proto.Message) map[netip.AddrPort]string {
	out := map[netip.AddrPort]string{}
	cla, _ := m.(*endpointv3.ClusterLoadAssignment)
	for _, l := range cla.GetEndpoints() {
		for _, e := range l.LbEndpoints {
			a := e.GetEndpoint().GetAddress().GetSocketAddress()
			at := netip.AddrPortFrom(netip.MustParseAddr(a.Address), uint16(a.GetPortValue()))
			out[at] = l.GetLocality().GetZone() + " " + e.GetEndpoint().Hostname
		}
	}
	return out
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// Whatever changes come, a set that passes the guard holds no forbidden change;
// what Build makes is never refused for its own sake; and building is
// deterministic.
func FuzzSafe(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 7))
		var published []resource.Resource
		var w setting
		for range 20 {
			w = next(r, w)
			next, _ := Build(w.config, w.wishes)
			again := shuffled(r, w)
			if rs, _ := Build(again.config, again.wishes); !bytes.Equal(encoded(t, rs), encoded(t, next)) {
				t.Fatal("another order gives other bytes")
			}
			if refusals := Safe(nil, next, May{}); len(refusals) > 0 {
				t.Fatalf("what was built is refused by itself: %v", refusals)
			}
			if r.IntN(2) == 0 {
				next = spoil(r, next)
			}
			held := byte(r.IntN(6))
			may := May{
				Remove: map[discovery.Service]bool{"a": r.IntN(2) == 0, "line": r.IntN(2) == 0},
				Holds:  func(_ string, a netip.AddrPort) bool { return a.Addr().As4()[3] < held },
			}
			if len(Safe(published, next, may)) > 0 {
				continue
			}
			if err := forbidden(published, next, may); err != nil {
				t.Fatalf("the guard let it pass: %v", err)
			}
			published = next
		}
	})
}
