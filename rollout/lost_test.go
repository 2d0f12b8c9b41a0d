package rollout_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// Of two thousand lost proxies those of whom nobody hears leave together, in one
// decision; who is heard is waited for, however many leave.
func TestTheLostLeaveTogether(t *testing.T) {
	began := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	now := began.Add(time.Minute)
	machine := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}) }
	stored := state.New("chat", discovery.Blue)
	stored.Machines = map[string]netip.Addr{}
	for i := range 2000 {
		node := fmt.Sprintf("pod-%04d", i)
		stored.Proxies = append(stored.Proxies, node)
		stored.Machines[node] = machine(i)
	}
	seen := observed.Seen{
		Watching: began, Instances: map[discovery.InstanceID]observed.Sighting{},
		Proxies: []observed.Proxy{{Node: "pod-new", Addr: machine(3000), Routes: true, Connected: true, Confirmed: true}},
	}
	for i, c := range discovery.Colours {
		in := discovery.Instance{ID: discovery.InstanceID(c), Colour: c, Health: discovery.Passing, Drain: "http://" + string(c), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 9000)}
		seen.Fleet.Instances = append(seen.Fleet.Instances, in)
		status := contract.Status{State: contract.Serving, Boot: string(c), Active: 2, Accepted: 2, Peers: map[string]contract.Peer{
			machine(7).String(): {Held: 1, Accepted: 1}, machine(3000).String(): {Held: 1, Accepted: 1},
		}}
		seen.Instances[in.ID] = observed.Sighting{}.After(status, nil, began).After(status, nil, now)
	}
	d := rollout.Step(stored, seen, now)
	if got := fmt.Sprint(d.Next.Proxies); got != "[pod-0007 pod-new]" || len(d.Next.Machines) != 2 {
		t.Errorf("waited for are %s, known machines %d", got, len(d.Next.Machines))
	}
	if again := rollout.Step(d.Next, seen, now); again.Changed {
		t.Error("a second decision follows")
	}
	// Where one cannot say whom it hears of, nobody is proven gone.
	blue := seen.Instances["blue"]
	blue.Status.Peers = nil
	seen.Instances["blue"] = observed.Sighting{}.After(blue.Status, nil, now)
	if d := rollout.Step(stored, seen, now); len(d.Next.Proxies) != 2001 {
		t.Errorf("%d are waited for, though an instance cannot say", len(d.Next.Proxies))
	}
}
