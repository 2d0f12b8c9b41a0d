package envoy

import (
	"fmt"
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/types/known/anypb"
)

// packed wraps a message of ours; equal messages give equal bytes.
func packed(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(err) // only invalid UTF-8 in a string can cause it, which Check refuses
	}
	return a
}

// each visits a message and every message packed into it, however deep.
func each(m proto.Message, visit func(proto.Message) error) error {
	return protorange.Range(m.ProtoReflect(), func(v protopath.Values) error {
		switch last := v.Index(-1); last.Step.Kind() {
		case protopath.RootStep, protopath.AnyExpandStep:
			return visit(last.Value.Message().Interface())
		}
		return nil
	})
}

// validate applies the protos' own rules, to packed messages too.
func validate(m proto.Message) error {
	return each(m, func(m proto.Message) error {
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

// choices are the weighted choices that a message makes, each a list of targets.
func choices(m proto.Message) (all [][]target, err error) {
	err = each(m, func(m proto.Message) error {
		switch m := m.(type) {
		case *routev3.RouteConfiguration:
			for _, v := range m.VirtualHosts {
				for _, r := range v.Routes {
					var c []target
					for _, w := range r.GetRoute().GetWeightedClusters().GetClusters() {
						c = append(c, target{w.Name, uint64(w.GetWeight().GetValue())})
					}
					if name := r.GetRoute().GetCluster(); name != "" {
						c = append(c, target{name, 1})
					}
					if r.GetRoute() != nil {
						all = append(all, c)
					}
				}
			}
		case *tcpv3.TcpProxy:
			var c []target
			for _, w := range m.GetWeightedClusters().GetClusters() {
				c = append(c, target{w.Name, uint64(w.Weight)})
			}
			if name := m.GetCluster(); name != "" {
				c = append(c, target{name, 1})
			}
			all = append(all, c)
		}
		return nil
	})
	return all, err
}

// after names the clusters that a message sends connections to, sorted.
func after(m proto.Message) []Ref {
	all, err := choices(m)
	if err != nil {
		return nil // validate says so
	}
	names := map[string]bool{}
	for _, c := range all {
		for _, t := range c {
			names[t.cluster] = true
		}
	}
	var refs []Ref
	for _, name := range slices.Sorted(maps.Keys(names)) {
		refs = append(refs, Ref{ClusterType, name})
	}
	return refs
}
