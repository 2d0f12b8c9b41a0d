package xds

import (
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	gcpstream "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
)

// deltaProtocol speaks the incremental protocol.
type deltaProtocol struct{ gcpstream.DeltaStream }

func (deltaProtocol) wholeState() bool { return false }

func (w deltaProtocol) receive() (request, error) {
	m, err := w.Recv()
	if err != nil {
		return request{}, err
	}
	return request{
		node: m.GetNode(), typeURL: m.GetTypeUrl(), nonce: m.GetResponseNonce(),
		refused: m.GetErrorDetail() != nil, message: m.GetErrorDetail().GetMessage(),
		subscribe: m.GetResourceNamesSubscribe(), unsubscribe: m.GetResourceNamesUnsubscribe(),
		claims: m.GetInitialResourceVersions(),
	}, nil
}

// send sends the response. Its resources are shared by all streams, the message is not.
func (w deltaProtocol) send(h *holding, r *response) error {
	resources := make([]*discovery.Resource, len(r.changed))
	for i, c := range r.changed {
		resources[i] = c.envelope
	}
	return w.Send(&discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: digest(r.changed), Resources: resources, RemovedResources: r.removed,
		TypeUrl: h.typeURL, Nonce: r.nonce,
	})
}
