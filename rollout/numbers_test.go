package rollout_test

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// numbers draws numbers from bytes: small ones, and those at the edges of what a door
// lets in.
type numbers []byte

func (n *numbers) next() uint64 {
	var b [9]byte
	copy(b[:], *n)
	*n = (*n)[min(9, len(*n)):]
	edges := []uint64{0, 1, 10, 1000, 1_000_000, contract.MaxConnections, contract.MaxTotal, math.MaxInt64, math.MaxUint64}
	if i := int(b[0]); i < 2*len(edges) {
		return edges[i/2] - uint64(i%2)
	}
	return binary.LittleEndian.Uint64(b[1:]) >> (b[0] % 64)
}

func (n *numbers) int() int { return int(n.next()) }

// FuzzNumbers lets instances, proxies and policies say whatever passes the doors, and
// holds the arithmetic behind them: nothing overflows, no decision is one that no state
// may have, and no step is more than the cap.
func FuzzNumbers(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 12})
	f.Fuzz(func(t *testing.T, bytes []byte) {
		draw := numbers(bytes)
		w := newWorld(t, small(3, 3, 60, 1))
		w.Edge.ReportLoads()
		policy := w.Policy
		policy.Window, policy.Capacity, policy.ReturnTimeout = units.Window(draw.int()), draw.int(), units.Duration(draw.next())
		policy.Grace, policy.Deadline, policy.Stagger.Soak = units.Duration(draw.next()), units.Duration(draw.next()), units.Duration(draw.next())
		policy.Funnel.Close = draw.int()
		policy.Stagger.Instances.Number = int(draw.next() % 4)
		if len(policy.Check()) > 0 {
			policy = w.Policy
		}
		w.Policy = policy
		w.Pass(3 * time.Second)
		w.must(rollout.Promote{Service: "chat", Target: discovery.Green, Force: true})
		w.Run(20*time.Second, func() bool { r := w.State().Rollout; return r == nil || r.Step == 2 })
		state, now := w.State(), w.Now()
		for range 6 {
			now = now.Add(5 * time.Second)
			seen := w.Seen()
			for key, sight := range seen.Instances {
				said := sight.Status
				said.Active, said.Accepted, said.Evicted, said.Refused = draw.int(), draw.next(), draw.next(), draw.next()
				said.Limit, said.Epoch = draw.int(), max(said.Epoch, draw.next())
				if returned := draw.next(); returned%3 > 0 {
					said.Returned = &returned
				}
				if said.Check() == nil {
					seen.Instances[key] = sight.After(said, nil, now)
				}
			}
			for at, load := range seen.Loads {
				load.At, load.Held = now, int(draw.next()%(10*contract.MaxConnections))
				load.Accepted, load.Refused = draw.next()>>1, draw.next()>>1
				seen.Loads[at] = load
			}
			for c, x := range seen.Witnesses {
				x.At, x.Active = now, int(draw.next()%(10*contract.MaxConnections))
				seen.Witnesses[c] = x
			}
			plan, err := rollout.MakePlan(state, seen, discovery.Green, policy, now)
			if err == nil && (plan.Takes < 0 || plan.Steps < 0 || plan.Connections < 0 || plan.PeakPerSecond < 0) {
				t.Fatalf("a plan of %d connections in %d steps, %s", plan.Connections, plan.Steps, plan.Takes)
			}
			for range 10 {
				d := rollout.Step(state, seen, now)
				if d.Reason.Code == rollout.StoreFailing {
					t.Fatalf("a decision no state may have: %s", d.Reason.Text)
				}
				rollout.Wished(d.Next, seen, now)
				if state = d.Next; !d.Changed {
					break
				}
			}
			closes := 0
			for _, m := range state.Members {
				if m.Ceiling != nil {
					closes += m.Share
				}
			}
			if r := state.Rollout; r != nil && (closes > policy.Funnel.Close || r.Lost < 0 || r.Total < 0) {
				t.Fatalf("a step of %d closes under a cap of %d; %d lost of %d", closes, policy.Funnel.Close, r.Lost, r.Total)
			}
		}
	})
}
