package envoy

import (
	"fmt"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// packed wraps a message of ours; equal messages give equal bytes.
func packed(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(err) // only invalid UTF-8 in a string can cause it, which Check refuses
	}
	return a
}

// validate applies the protos' own rules, to packed messages too, however deep.
func validate(m proto.Message) error {
	if cla, ok := m.(*endpointv3.ClusterLoadAssignment); ok {
		return cla.ValidateAll() // long, and nothing is packed in it
	}
	return protorange.Range(m.ProtoReflect(), func(v protopath.Values) error {
		last := v.Index(-1)
		if k := last.Step.Kind(); k != protopath.RootStep && k != protopath.AnyExpandStep {
			return nil
		}
		m := last.Value.Message().Interface()
		checked, ok := m.(interface{ ValidateAll() error })
		if !ok {
			return fmt.Errorf("%T has no rules of its own to be checked by", m)
		}
		return checked.ValidateAll()
	})
}

// target is one place that a message sends connections to.
type target struct {
	cluster string
	weight  uint64
}

// choices are the weighted choices that a resource makes, each a list of targets.
func choices(m proto.Message) (all [][]target) {
	switch m := m.(type) {
	case *routev3.RouteConfiguration:
		for _, v := range m.VirtualHosts {
			for _, r := range v.Routes {
				if to := r.GetRoute(); to != nil {
					all = append(all, routeTargets(to))
				}
			}
		}
	case *corev3.TypedExtensionConfig:
		if to := (&tcpv3.TcpProxy{}); m.TypedConfig.UnmarshalTo(to) == nil {
			all = append(all, tcpTargets(to))
		}
	}
	return all
}

func routeTargets(r *routev3.RouteAction) (to []target) {
	for _, w := range r.GetWeightedClusters().GetClusters() {
		to = append(to, target{w.Name, uint64(w.GetWeight().GetValue())})
	}
	if name := r.GetCluster(); name != "" {
		to = append(to, target{name, 1})
	}
	return to
}

func tcpTargets(p *tcpv3.TcpProxy) (to []target) {
	for _, w := range p.GetWeightedClusters().GetClusters() {
		to = append(to, target{w.Name, uint64(w.Weight)})
	}
	if name := p.GetCluster(); name != "" {
		to = append(to, target{name, 1})
	}
	return to
}

// after names the clusters that a message sends connections to, sorted.
func after(m proto.Message) []resource.Ref {
	names := map[string]bool{}
	for _, c := range choices(m) {
		for _, t := range c {
			names[t.cluster] = true
		}
	}
	var refs []resource.Ref
	for _, name := range slices.Sorted(maps.Keys(names)) {
		refs = append(refs, resource.Ref{Type: ClusterType, Name: name})
	}
	return refs
}
