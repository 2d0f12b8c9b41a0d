package main

import (
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	xdsproto "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// stranger is an xDS client as gRPC has one: it asks for one listener by name, over the
// state of the world, and refuses what it gets, because that is for Envoy.
func (p *program) stranger(node, listener string) {
	p.t.Helper()
	conn, err := grpc.NewClient(p.xds.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	stream, err := xdsproto.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	heard := make(chan struct{})
	p.t.Cleanup(func() { _ = conn.Close(); <-heard })
	ask := &xdsproto.DiscoveryRequest{Node: &core.Node{Id: node, UserAgentName: "gRPC"}, TypeUrl: envoy.ListenerType, ResourceNames: []string{listener}}
	if err := stream.Send(ask); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(heard)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			ask.ResponseNonce = m.Nonce
			if len(m.Resources) > 0 {
				ask.ErrorDetail = &rpc.Status{Message: "it has no api_listener"}
			}
			_ = stream.Send(ask)
		}
	}()
}

// An xDS client that routes to no service stops no promotion, and is listed as what it is.
func TestAStrangerHoldsNothingUp(t *testing.T) {
	p := newProgram(t, 9)
	p.launch()
	p.stranger("grpc-1", "chat")
	p.stranger("grpc-2", "web")
	p.listen("edge-1")
	foreign := map[string]bool{}
	p.until("all are listed, and what grpc-2 refused", func() bool {
		all, err := p.api.Proxies(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		refusals := 0
		for _, x := range all {
			foreign[x.Node] = x.Foreign
			refusals += len(x.Nacks)
		}
		return len(all) == 3 && refusals == 1 && p.status("chat").Proxies.Confirmed == 1
	})
	if foreign["edge-1"] || !foreign["grpc-1"] || !foreign["grpc-2"] {
		t.Errorf("foreign are %v", foreign)
	}
	if _, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "green"}); err != nil {
		t.Fatal(err)
	}
	p.until("green is live", func() bool {
		st := p.status("chat")
		if st.Proxies.Connected != 1 || len(st.Proxies.Nacks) > 0 {
			t.Fatalf("the service sees %+v", st.Proxies)
		}
		return st.Live == discovery.Green
	})
}
