//go:build real

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/fleet"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// oneService is a service on a listener at a free port.
func oneService(b *testing.B) string {
	return fmt.Sprintf("listeners: [{name: web, address: %q}]\nservices: [{name: chat}]\n", got(fleet.FreeAddr())(b))
}

// BenchmarkRegister is the time from the registration of an instance in a real
// Consul, or from its check turning critical, to the acknowledgement of its
// endpoint, open or draining, by a real Envoy.
func BenchmarkRegister(b *testing.B) {
	const n = 200
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	agent := got(fleet.StartConsul(ctx, b.TempDir()))(b)
	b.Cleanup(agent.Kill)
	registry := got(consul.NewClient(&consul.Config{Address: agent.HTTP.String()}))(b).Agent()
	addrs := gates(b, n+2)
	register := func(i int, colour discovery.Colour) discovery.InstanceID {
		id := fmt.Sprintf("%s-%d", colour, i)
		must(b, registry.ServiceRegister(&consul.AgentServiceRegistration{
			ID: id, Name: "chat", Tags: []string{string(colour)}, Address: "127.0.0.1", Port: int(addrs[i].Port()),
			Meta: map[string]string{"drain": addrs[i].String()},
			Check: &consul.AgentServiceCheck{
				CheckID: "check:" + id, TTL: "10m", Status: consul.HealthPassing,
			},
		}))
		return discovery.InstanceID(id)
	}
	register(n, discovery.Blue)
	register(n+1, discovery.Green)
	p := startBenched(b, fmt.Sprintf("{consul: {address: %q}}", agent.HTTP), oneService(b))
	p.envoys(b, ctx, 1)

	b.Run("Open", func(b *testing.B) {
		var whole, put []time.Duration
		for b.Loop() {
			for i := range n - len(whole) {
				begin := time.Now()
				id := register(i, discovery.Blue)
				put = append(put, time.Since(begin))
				end := p.await(b, ctx, string(id), func() bool { return p.holds(id, false) })
				whole = append(whole, end.Sub(begin))
			}
		}
		percentiles(b, "", whole)
		percentiles(b, "consul-", put) // of it, Consul's answer to the registration
	})
	b.Run("Critical", func(b *testing.B) {
		var whole []time.Duration
		for b.Loop() {
			for i := range n - len(whole) {
				id := discovery.InstanceID(fmt.Sprintf("%s-%d", discovery.Blue, i))
				begin := time.Now()
				must(b, registry.UpdateTTL("check:"+string(id), "ill", consul.HealthCritical))
				end := p.await(b, ctx, string(id), func() bool { return p.holds(id, true) })
				whole = append(whole, end.Sub(begin))
				must(b, registry.UpdateTTL("check:"+string(id), "well", consul.HealthPassing))
				p.await(b, ctx, string(id), func() bool { return p.holds(id, false) })
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
	writeFleet(b, path, []discovery.Service{"chat"}, gates(b, 6))
	p := startBenched(b, fmt.Sprintf("{file: %q}", path), oneService(b))
	p.envoys(b, ctx, 2)
	steady := func(v rollout.View) bool { return v.State.Rollout == nil }
	asked := p.look(b, ctx, "an answer of every instance", func(v rollout.View) bool { return len(v.Seen.Instances) == 6 })

	var whole, answer []time.Duration
	for b.Loop() {
		for target := asked.State.Live.Other(); len(whole) < n; target = target.Other() {
			begin := time.Now()
			if _, err := p.client.Promote(ctx, "chat", api.Promotion{Target: string(target)}); err != nil {
				b.Fatal(err)
			}
			answer = append(answer, time.Since(begin))
			v := p.look(b, ctx, "the acknowledgements", func(v rollout.View) bool {
				r := v.State.Rollout
				return r != nil && r.Phase == rollout.Confirming && !r.Settled.IsZero()
			})
			whole = append(whole, v.State.Rollout.Settled.Sub(begin))
			p.look(b, ctx, "the end of the rollout", steady)
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
