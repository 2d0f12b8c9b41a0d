package envoy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// RuntimeName is the Runtime that every proxy's bootstrap asks for. There is one
// for all services, because each would need a layer in the bootstrap.
const RuntimeName = "sluice"

// admitted is one colour's share of connections at one proxy.
type admitted struct {
	key string
	max int
}

// limits says what one proxy admits to each colour: ⌈limit / proxies⌉, so all
// proxies together admit at most proxies-1 more than the limit. It goes by Runtime
// and not into the cluster, because a changed cluster warms up again. Nothing
// ends an established connection when it falls below what is held.
func limits(s edge.Service, w desired.Wish) ([]admitted, error) {
	if w.Proxies < 0 {
		return nil, fmt.Errorf("service %s: %d proxies share its limits; there must be at least 0", s.Name, w.Proxies)
	}
	var out []admitted
	for _, colour := range slices.Sorted(maps.Keys(w.Limits)) {
		limit := w.Limits[colour]
		if _, err := discovery.ParseColour(string(colour)); err != nil {
			return nil, fmt.Errorf("service %s: a limit names no colour: %w", s.Name, err)
		}
		if limit < 0 {
			return nil, fmt.Errorf("service %s: the limit of %s is %d; it must not be negative", s.Name, colour, limit)
		}
		// No open instance, no limit: a breaker of 0 left behind would refuse
		// everything once there is one again.
		if n := share(limit, w.Proxies); n > 0 && n < unlimited {
			out = append(out, admitted{limitKey(s, colour), n})
		}
	}
	return out, nil
}

// share is what one of the proxies gets of a whole, rounded up.
func share(whole, proxies int) int {
	p := max(1, proxies)
	return whole/p + min(1, whole%p)
}

// limitKey is the runtime key that overrides a cluster's circuit breaker. Beyond
// max_requests an HTTP request gets 503; beyond max_connections one would wait
// for a connection that never comes, so that is for TCP, which is closed there.
func limitKey(s edge.Service, colour discovery.Colour) string {
	what := "max_requests"
	if s.Protocol == edge.TCP {
		what = "max_connections"
	}
	return "circuit_breakers." + ClusterName(s.Name, colour) + ".default." + what
}

// limited is the cluster that a runtime key limits; false for any other key.
func limited(key string) (cluster string, ok bool) {
	rest, ok := strings.CutPrefix(key, "circuit_breakers.")
	cluster, what, _ := strings.Cut(rest, ".")
	return cluster, ok && (what == "default.max_requests" || what == "default.max_connections")
}

func runtime(all []admitted) resource.Resource {
	layer := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, a := range all {
		layer.Fields[a.key] = structpb.NewNumberValue(float64(a.max))
	}
	return resource.New(RuntimeName, &runtimev3.Runtime{Name: RuntimeName, Layer: layer})
}

// limits: every key limits a cluster, to at least one connection; any other could
// change how Envoy works. A refusal names the service of the cluster.
func (g *guard) limits(r resource.Resource, m *runtimev3.Runtime) {
	for _, key := range slices.Sorted(maps.Keys(m.GetLayer().GetFields())) {
		cluster, ok := limited(key)
		if !ok {
			g.refuse(LimitUnfit, r, "has key %q, which is no cluster's limit; take it away", key)
			continue
		}
		// What is no number is 0 here.
		if n := m.Layer.Fields[key].GetNumberValue(); !(n >= 1 && n <= unlimited) || n != math.Trunc(n) {
			if to := g.after(resource.Ref{Type: ClusterType, Name: cluster}); to != nil {
				r.Owner = to.Owner
			}
			g.refuse(LimitUnfit, r, "has %v as %q; a limit is a whole number from 1 to %d, or left out", m.Layer.Fields[key].AsInterface(), key, unlimited)
		}
	}
}
