//go:build real

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// someServices are n on one listener, told apart by their prefix.
func someServices(b *testing.B, n int) (rest string, names []discovery.Service) {
	var text strings.Builder
	fmt.Fprintf(&text, "listeners: [{name: web, address: %q}]\nservices:\n", got(fleet.FreeAddr())(b))
	for i := range n {
		name := discovery.Service(fmt.Sprint("chat-", i))
		names = append(names, name)
		fmt.Fprintf(&text, "  - {name: %s, prefix: /%s}\n", name, name)
	}
	return text.String(), names
}

// BenchmarkRegister is the time from the registration of an instance in a real
// Consul, or from its check turning critical, to the acknowledgement of its
// endpoint, open or draining, by a real Envoy. Two services grow to 100 instances
// each: Consul answers with a whole service, so larger ones take longer.
func BenchmarkRegister(b *testing.B) {
	const n = 200
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	agent := got(fleet.StartConsul(ctx, b.TempDir()))(b)
	b.Cleanup(agent.Kill)
	registry := got(consul.NewClient(&consul.Config{Address: agent.HTTP.String()}))(b).Agent()
	rest, names := someServices(b, 2)
	addrs := gates(b, n+2)
	id := func(i int) discovery.InstanceID { return discovery.InstanceID(fmt.Sprint("i-", i)) }
	register := func(i int) {
		must(b, registry.ServiceRegister(&consul.AgentServiceRegistration{
			ID: string(id(i)), Name: string(names[i%2]), Tags: []string{"blue"}, Address: "127.0.0.1", Port: int(addrs[i].Port()),
			Meta:  map[string]string{"drain": addrs[i].String()},
			Check: &consul.AgentServiceCheck{CheckID: "check:" + string(id(i)), TTL: "10m", Status: consul.HealthPassing},
		}))
	}
	register(n)
	register(n + 1)
	p := startBenched(b, fmt.Sprintf("{consul: {address: %q}}", agent.HTTP), rest)
	p.envoys(b, ctx, 1, names...)
	acknowledged := func(b *testing.B, i int, draining bool) time.Time {
		return p.await(b, ctx, string(id(i)), func() bool { return p.holds(names[i%2], id(i), draining) })
	}

	b.Run("Open", func(b *testing.B) {
		var whole, put []time.Duration
		for b.Loop() {
			for i := range n - len(whole) {
				begin := time.Now()
				register(i)
				put = append(put, time.Since(begin))
				whole = append(whole, acknowledged(b, i, false).Sub(begin))
			}
		}
		percentiles(b, "", whole)
		percentiles(b, "consul-", put) // of it, Consul's answer to the registration
	})
	b.Run("Critical", func(b *testing.B) {
		var whole []time.Duration
		for b.Loop() {
			for i := range n - len(whole) {
				begin := time.Now()
				must(b, registry.UpdateTTL("check:"+string(id(i)), "ill", consul.HealthCritical))
				whole = append(whole, acknowledged(b, i, true).Sub(begin))
				must(b, registry.UpdateTTL("check:"+string(id(i)), "well", consul.HealthPassing))
				acknowledged(b, i, false)
			}
		}
		percentiles(b, "", whole)
	})
}

// BenchmarkPromote is the time from `promote`, asked over HTTP, to the
// acknowledgement of the switch by both of two real Envoys, there and back.
func BenchmarkPromote(b *testing.B) {
	const n = 60
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	path := filepath.Join(b.TempDir(), "instances.yaml")
	rest, names := someServices(b, 1)
	writeFleet(b, path, names, gates(b, 6))
	p := startBenched(b, fmt.Sprintf("{file: %q}", path), rest)
	p.envoys(b, ctx, 2, names...)
	steady := func(v rollout.View) bool { return v.State.Rollout == nil }
	asked := p.look(b, ctx, names[0], "an answer of every instance", func(v rollout.View) bool { return len(v.Seen.Instances) == 6 })

	var whole, answer []time.Duration
	for b.Loop() {
		for target := asked.State.Live.Other(); len(whole) < n; target = target.Other() {
			begin := time.Now()
			if _, err := p.client.Promote(ctx, names[0], api.Promotion{Target: string(target)}); err != nil {
				b.Fatal(err)
			}
			answer = append(answer, time.Since(begin))
			v := p.look(b, ctx, names[0], "the acknowledgements", func(v rollout.View) bool {
				r := v.State.Rollout
				return r != nil && r.Phase == state.Confirming && !r.Settled.IsZero()
			})
			whole = append(whole, v.State.Rollout.Settled.Sub(begin))
			p.look(b, ctx, names[0], "the end of the rollout", steady)
		}
	}
	percentiles(b, "", whole)
	percentiles(b, "answer-", answer) // of it, the answer to the request
}

// writeFleet writes a discovery file in which every service has an equal share
// of the instances at addrs, half of them blue.
func writeFleet(b *testing.B, path string, names []discovery.Service, addrs []netip.AddrPort) {
	b.Helper()
	all := fleet.Instances{}
	for i, a := range addrs {
		name := names[i%len(names)]
		all[name] = append(all[name], fleet.Instance{
			ID: discovery.InstanceID(fmt.Sprintf("%s-%03d", name, i)), Colour: discovery.Colours[i/len(names)%2],
			Address: a.String(), Drain: a.String(),
		})
	}
	text, err := yaml.Marshal(map[string]fleet.Instances{"services": all})
	must(b, err)
	must(b, os.WriteFile(path, text, 0o644))
}
