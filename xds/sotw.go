package xds

import (
	"net/url"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	gcpstream "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// sotwProtocol speaks the state-of-the-world protocol. It lacks what the delta
// protocol says on reconnect: which versions the proxy holds. For the types whose
// responses contain everything (listeners, clusters), where leaving out is
// removing, the version that we give such a response therefore lists its content,
// and comes back with the first request of the next stream.
type sotwProtocol struct{ gcpstream.Stream }

func (sotwProtocol) wholeState() bool { return true }

func (w sotwProtocol) receive() (request, error) {
	m, err := w.Recv()
	if err != nil {
		return request{}, err
	}
	return request{
		node: m.GetNode(), typeURL: m.GetTypeUrl(), nonce: m.GetResponseNonce(),
		refused: m.GetErrorDetail() != nil, message: m.GetErrorDetail().GetMessage(),
		names: m.GetResourceNames(), version: wholeVersion(m),
	}, nil
}

// wholeVersion is the version that a request names, where it means something.
func wholeVersion(m *discovery.DiscoveryRequest) string {
	if cache.ResourceRequiresFullStateInSotw(m.GetTypeUrl()) {
		return m.GetVersionInfo()
	}
	return ""
}

func (w sotwProtocol) send(h *holding, r *response) error {
	content, version := r.changed, digest(r.changed)
	if cache.ResourceRequiresFullStateInSotw(h.typeURL) {
		content = r.all
		version = contents(content)
	}
	resources := make([]*anypb.Any, len(content))
	for i, c := range content {
		resources[i] = c.envelope.Resource
	}
	return w.Send(&discovery.DiscoveryResponse{VersionInfo: version, Resources: resources, TypeUrl: h.typeURL, Nonce: r.nonce})
}

// digest is a version for several resources: that of the only one, or a hash.
func digest(resources []*revision) string {
	if len(resources) == 1 {
		return resources[0].version
	}
	var b strings.Builder
	for _, r := range resources {
		b.WriteString(r.Name + "=" + r.version + "\n")
	}
	return resource.Version([]byte(b.String()))
}

// nothingHeld is the list of no resources: an empty version would mean that the
// proxy has accepted nothing yet.
const nothingHeld = "="

// contents is a version that says which resources a response contains; parseContents reads it.
func contents(resources []*revision) string {
	if len(resources) == 0 {
		return nothingHeld
	}
	v := make(url.Values, len(resources))
	for _, r := range resources {
		v.Set(r.Name, r.version)
	}
	return v.Encode()
}

// parseContents reads what contents wrote; foreign means that the version was not ours, so
// that nobody knows what the proxy holds.
func parseContents(version string) (claims map[string]string, foreign bool) {
	if version == "" || version == nothingHeld {
		return nil, false
	}
	v, err := url.ParseQuery(version)
	if err != nil {
		return nil, true
	}
	claims = make(map[string]string, len(v))
	for name, versions := range v {
		if name == "" || len(versions) != 1 || len(versions[0]) != 16 {
			return nil, true
		}
		claims[name] = versions[0]
	}
	return claims, false
}
