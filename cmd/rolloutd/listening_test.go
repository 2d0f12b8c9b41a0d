package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	xdsproto "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// listening is a proxy that hears and acknowledges as Envoy does, over delta
// xDS, and routes nothing.
type listening struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[xdsproto.DeltaDiscoveryRequest, xdsproto.DeltaDiscoveryResponse]

	mu      sync.Mutex
	held    map[resource.Ref]bool
	version map[resource.Ref]string
	weights map[string]uint32 // by cluster, of the last routes
	leave   func()
	nowhere string // what a route of the last routes answers by itself
	removed []string
}

func (p *program) listen(node string) *listening { return p.listenAgain(node, nil) }

// listenAgain is a proxy that connects with what it held before.
func (p *program) listenAgain(node string, before *listening) *listening {
	p.t.Helper()
	return listenAt(p.t, p.xds.String(), node, before)
}

// listenAt is a proxy of the rolloutd at this address.
func listenAt(t testing.TB, xds, node string, before *listening) *listening {
	t.Helper()
	conn, err := grpc.NewClient(xds, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := xdsproto.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l := &listening{t: t, stream: stream, held: map[resource.Ref]bool{}, version: map[resource.Ref]string{}, weights: map[string]uint32{}}
	var hearing sync.WaitGroup
	l.leave = func() { cancel(); hearing.Wait(); _ = conn.Close() }
	t.Cleanup(l.leave)
	for _, kind := range []string{envoy.ClusterType, envoy.EndpointType, envoy.ListenerType, envoy.RouteType} {
		r := &xdsproto.DeltaDiscoveryRequest{Node: &core.Node{Id: node, Cluster: "edge"}, TypeUrl: kind, InitialResourceVersions: before.claims(kind)}
		if r.ResourceNamesSubscribe = slices.Sorted(maps.Keys(r.InitialResourceVersions)); kind == envoy.ClusterType || kind == envoy.ListenerType {
			r.ResourceNamesSubscribe = []string{"*"}
		}
		for name, version := range r.InitialResourceVersions {
			l.held[resource.Ref{Type: kind, Name: name}], l.version[resource.Ref{Type: kind, Name: name}] = true, version
		}
		if len(r.ResourceNamesSubscribe) > 0 {
			l.send(r)
		}
	}
	hearing.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			l.take(m)
		}
	})
	return l
}

// claims is what the proxy holds of a type; nothing of no proxy.
func (l *listening) claims(kind string) map[string]string {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for ref, version := range l.version {
		if ref.Type == kind {
			out[ref.Name] = version
		}
	}
	return out
}

func (l *listening) send(r *xdsproto.DeltaDiscoveryRequest) { _ = l.stream.Send(r) }

// take acknowledges, and subscribes to what the resources refer to.
func (l *listening) take(m *xdsproto.DeltaDiscoveryResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	follows := map[string]string{envoy.ClusterType: envoy.EndpointType, envoy.ListenerType: envoy.RouteType}
	var names []string
	for _, r := range m.Resources {
		if !l.held[resource.Ref{Type: m.TypeUrl, Name: r.Name}] {
			names = append(names, r.Name)
		}
		l.held[resource.Ref{Type: m.TypeUrl, Name: r.Name}] = true
		l.version[resource.Ref{Type: m.TypeUrl, Name: r.Name}] = r.Version
		if m.TypeUrl == envoy.RouteType {
			l.routes(r)
		}
	}
	l.removed = append(l.removed, m.RemovedResources...)
	l.send(&xdsproto.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce})
	if next := follows[m.TypeUrl]; next != "" && len(names) > 0 {
		l.send(&xdsproto.DeltaDiscoveryRequest{TypeUrl: next, ResourceNamesSubscribe: names})
	}
}

func (l *listening) routes(r *xdsproto.Resource) {
	conf := &route.RouteConfiguration{}
	if err := r.Resource.UnmarshalTo(conf); err != nil {
		l.t.Error(err)
	}
	clear(l.weights)
	l.nowhere = ""
	for _, host := range conf.VirtualHosts {
		for _, x := range host.Routes {
			if own := x.GetDirectResponse(); own != nil {
				l.nowhere = fmt.Sprintf("%d %s", own.Status, own.Body.GetInlineString())
			}
			for _, c := range x.GetRoute().GetWeightedClusters().GetClusters() {
				l.weights[c.Name] = c.Weight.GetValue()
			}
		}
	}
}

// weight is the share of new connections that a cluster gets, and whether the
// proxy has heard of it.
func (l *listening) weight(cluster string) (uint32, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, ok := l.weights[cluster]
	return w, ok
}

// lost is what it was told to forget.
func (l *listening) lost() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.removed)
}

func (l *listening) holds(kind, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[resource.Ref{Type: kind, Name: name}]
}
