//go:build real

package envoy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sluice-proxy/sluice/test/fleet"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// Envoy itself finds nothing wrong with what is built from the golden worlds,
// when all of it stands in one static file: strictly, so that a field it does
// not know or that is deprecated is an error.
func TestRealValidate(t *testing.T) {
	envoy, err := fleet.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range worlds() {
		t.Run(name, func(t *testing.T) {
			rs, errs := Build(w.config, w.wishes)
			if len(errs) > 0 && name != "faults" {
				t.Fatal(errs)
			}
			file := filepath.Join(t.TempDir(), "static.json")
			b, err := protojson.Marshal(&bootstrapv3.Bootstrap{StaticResources: static(t, rs)})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "--service-node", "edge-1", "--service-cluster", "edges", "-c", file, "--log-level", "warning").CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s\n%s", err, out, b)
			}
		})
	}
}

// static puts what comes over xDS where a static file has it.
func static(t *testing.T, rs []resource.Resource) *bootstrapv3.Bootstrap_StaticResources {
	t.Helper()
	of := index(rs)
	s := &bootstrapv3.Bootstrap_StaticResources{}
	for _, r := range rs {
		switch m := r.Message.(type) {
		case *clusterv3.Cluster:
			m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
			m.EdsClusterConfig = nil
			m.LoadAssignment = of[resource.Ref{Type: EndpointType, Name: r.Name}].Message.(*endpointv3.ClusterLoadAssignment)
			s.Clusters = append(s.Clusters, m)
		case *listenerv3.Listener:
			chain := m.FilterChains[0]
			chain.TransportSocket = nil // its files are on no machine
			whole := true
			for _, f := range chain.Filters {
				inline(t, f, of, r.Name)
				whole = whole && f.ConfigType != nil
			}
			if whole {
				s.Listeners = append(s.Listeners, m)
			}
		}
	}
	return s
}

func inline(t *testing.T, f *listenerv3.Filter, of map[resource.Ref]*resource.Resource, name string) {
	t.Helper()
	if f.GetConfigDiscovery() != nil {
		f.ConfigType = nil
		if r := of[resource.Ref{Type: ExtensionType, Name: f.Name}]; r != nil {
			f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: r.Message.(*corev3.TypedExtensionConfig).TypedConfig}
		}
		return
	}
	m := &hcmv3.HttpConnectionManager{}
	if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	guard := m.HttpFilters[0]
	guard.ConfigType = &hcmv3.HttpFilter_TypedConfig{
		TypedConfig: of[resource.Ref{Type: ExtensionType, Name: guard.Name}].Message.(*corev3.TypedExtensionConfig).TypedConfig,
	}
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{
		RouteConfig: of[resource.Ref{Type: RouteType, Name: name}].Message.(*routev3.RouteConfiguration),
	}
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(m)}
}
