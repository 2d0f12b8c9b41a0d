package envoy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// endpoints is where the instances of one colour are. The locality is the same
// for all and there is no host name, because changing either makes Envoy forget
// which connections an endpoint holds. An instance that leaves is DRAINING, never
// UNHEALTHY. Of two at one address one is published, and it serves if either does. Whose an
// endpoint is stands in its metadata, for logs: changing that keeps its connections.
func endpoints(s discovery.Service, colour discovery.Colour, of []desired.Endpoint) (resource.Resource, error) {
	draining := map[netip.AddrPort]bool{}
	whose := map[netip.AddrPort]discovery.InstanceID{}
	for _, e := range of {
		if err := dialable(e.Addr); err != nil {
			return resource.Resource{}, fmt.Errorf("service %s: instance %s: %w", s, e.ID, err)
		}
		addr := unmapped(e.Addr)
		before, twice := draining[addr]
		draining[addr] = e.Draining && (before || !twice)
		if !twice || e.ID < whose[addr] {
			whose[addr] = e.ID
		}
	}
	name := ClusterName(s, colour)
	m := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	if len(draining) > 0 {
		m.Endpoints = []*endpointv3.LocalityLbEndpoints{{Locality: &corev3.Locality{}}}
	}
	for _, addr := range slices.SortedFunc(maps.Keys(draining), netip.AddrPort.Compare) {
		health := corev3.HealthStatus_HEALTHY
		if draining[addr] {
			health = corev3.HealthStatus_DRAINING
		}
		m.Endpoints[0].LbEndpoints = append(m.Endpoints[0].LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(addr)}},
			HealthStatus:        health,
			LoadBalancingWeight: wrapperspb.UInt32(1),
			Metadata:            described(map[string]string{instanceKey: string(whose[addr]), colourKey: string(colour)}),
		})
	}
	return ofService(s, resource.New(name, m)), nil
}

// dialable reports why Envoy could not connect to an address.
func dialable(a netip.AddrPort) error {
	switch ip := a.Addr(); {
	case !ip.IsValid(), ip.Zone() != "", ip.IsUnspecified(), ip.IsMulticast():
		return fmt.Errorf("its address %s is no IP address that can be connected to; register another", a)
	case a.Port() == 0:
		return fmt.Errorf("its address %s has port 0; register the port it listens on", a)
	}
	return nil
}

func address(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}
