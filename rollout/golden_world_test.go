package rollout_test

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

const (
	tick   = 100 * time.Millisecond
	second = units.Duration(time.Second)
)

// ground is the least world in which a service is rolled out: time passes in
// ticks, whatever is asked is answered at once, and nothing comes by chance. It
// stands beside rollout/sim because the golden states are the product's, not a
// world's: they must not change when the simulation gets better. What an answer does
// to what is known, and when an instruction is shown, is rollout's here too.
type ground struct {
	t        *testing.T
	now      time.Time
	state    state.State
	policy   policy.Policy
	machines map[discovery.InstanceID]*machine // by member
	seen     observed.Seen                     // all but the instances
	deaf     bool                              // no proxy acknowledges
	away     time.Duration                     // how long an evicted client is on its way
	coming   []time.Time                       // when evicted clients come back, sorted
	organic  time.Duration                     // how often a client comes by itself; 0: never
	turn     int
	reported bool // proxies report what instances hold
	hookErr  string
	reason   rollout.Reason
	log      strings.Builder // reasons since the last moment
}

// machine is one process with a drain endpoint, or without.
type machine struct {
	discovery.Instance
	gone, dead, deaf, full, tells bool

	status   contract.Status
	returned uint64
	held     int       // when the running order came
	ordered  time.Time // when it came
	order    contract.Order
	asked    []time.Time // when those were asked that are still there
	sight    observed.Sighting
}

// edge is the machine of a proxy.
func edge(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 0, n}) }

func newGround(t *testing.T, blue, green, connections int) *ground {
	g := &ground{
		t: t, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), state: state.New("chat", discovery.Blue), policy: policy.Default(),
		machines: map[discovery.InstanceID]*machine{}, away: 2 * time.Second,
	}
	g.policy.Funnel = units.Funnel{Close: 10, Every: 3 * second}
	g.seen = observed.Seen{
		Watching: g.now, Gates: map[string]observed.Reading{}, Hooks: map[discovery.InstanceID]observed.HookRun{},
		Proxies: []observed.Proxy{{Node: "edge-1", Addr: edge(1), Routes: true, Connected: true}, {Node: "edge-2", Addr: edge(2), Routes: true, Connected: true}},
	}
	for i := range blue {
		m := g.join(discovery.Blue, i+1)
		m.status.Active = connections/blue + min(1, max(0, connections%blue-i))
		m.status.Accepted = uint64(m.status.Active)
	}
	for i := range green {
		g.join(discovery.Green, i+1)
	}
	return g
}

func (g *ground) join(c discovery.Colour, i int) *machine {
	host := map[discovery.Colour]byte{discovery.Blue: 1, discovery.Green: 2}[c]
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, host, byte(i)}), 9000)
	m := &machine{tells: true, status: contract.Status{State: contract.Serving}, Instance: discovery.Instance{
		ID: discovery.InstanceID(fmt.Sprintf("%s%d", c[:1], i)), Colour: c, Addr: addr, Health: discovery.Passing, Drain: "http://" + addr.String(),
	}}
	if i%2 == 0 { // the others name no process
		m.status.Boot = "boot of " + string(m.ID)
	}
	g.machines[m.ID] = m
	return m
}

func (g *ground) sorted() []discovery.InstanceID { return slices.Sorted(maps.Keys(g.machines)) }

// pass lets time pass.
func (g *ground) pass(d time.Duration) {
	for end := g.now.Add(d); g.now.Before(end); {
		g.now = g.now.Add(tick)
		for _, key := range g.sorted() {
			g.work(g.machines[key])
			g.moveOver(g.machines[key])
		}
		for len(g.coming) > 0 && !g.coming[0].After(g.now) {
			g.coming = g.coming[1:]
			g.arrive(true)
		}
		if g.organic > 0 && g.now.Sub(g.seen.Watching)%g.organic == 0 {
			g.arrive(false)
		}
		g.look()
	}
}

// until lets time pass until done, at most ten minutes.
func (g *ground) until(what string, done func() bool) {
	g.t.Helper()
	for end := g.now.Add(10 * time.Minute); !done(); g.pass(tick) {
		if g.now.After(end) {
			g.t.Fatalf("never %s: %s: %s", what, g.state.Phase(), g.reason.Text)
		}
	}
}

func (g *ground) untilPhase(p state.Phase) {
	g.t.Helper()
	g.until(string(p), func() bool { return g.state.Phase() == p })
}

func (g *ground) untilCode(c rollout.Code) {
	g.t.Helper()
	g.until(string(c), func() bool { return g.reason.Code == c })
}

func (g *ground) untilStep(n uint64) {
	g.t.Helper()
	g.until(fmt.Sprint("step ", n), func() bool { return g.state.Rollout != nil && g.state.Rollout.Step >= n })
}

// work closes what the running order says by now.
func (g *ground) work(m *machine) {
	o := m.order
	if m.dead || m.status.State == contract.Serving || o.Ceiling == nil || m.held <= *o.Ceiling {
		return
	}
	share, since := m.held-*o.Ceiling, g.now.Sub(m.ordered)-time.Duration(o.StartMS)*time.Millisecond
	if since < 0 {
		return
	}
	let := min(share, 1+int(since*time.Duration(share)/(time.Duration(o.OverMS)*time.Millisecond)))
	for m.status.Active-m.status.Asked > max(*o.Ceiling, m.held-let) {
		m.status.Evicted++
		g.leave()
		if o.NoticeMS > 0 {
			m.status.Asked++
			m.asked = append(m.asked, g.now)
			continue
		}
		m.status.Active--
	}
}

// moveOver has the asked clients end the old connection that are connected anew.
func (g *ground) moveOver(m *machine) {
	for len(m.asked) > 0 && g.now.Sub(m.asked[0]) > g.away {
		m.asked = m.asked[1:]
		m.status.Active--
		m.status.Asked--
		m.status.Left++
	}
}

// leave has a client come back later.
func (g *ground) leave() {
	at := g.now.Add(g.away)
	i, _ := slices.BinarySearchFunc(g.coming, at.Add(1), time.Time.Compare)
	g.coming = slices.Insert(g.coming, i, at)
}

// arrive puts a client on the next endpoint that takes new connections.
func (g *ground) arrive(returning bool) {
	wish := rollout.Wished(g.state, g.sight(), g.now)
	var open []*machine
	for _, c := range discovery.Colours {
		for _, e := range wish.Endpoints[c] {
			if m := g.machines[e.ID]; wish.Weights[c] > units.Whole/2 && !e.Draining && !m.dead {
				open = append(open, m)
			}
		}
	}
	for range open {
		g.turn++
		m := open[g.turn%len(open)]
		if m.full {
			m.status.Refused++
			continue
		}
		m.status.Active++
		m.status.Accepted++
		if returning {
			m.returned++
		}
		return
	}
	g.leave()
}

// crash ends the process with all of its connections.
func (g *ground) crash(m *machine) {
	m.dead, m.Health = true, discovery.Critical
	for range m.status.Active {
		g.leave()
	}
	if m.Drain == "" {
		m.status.Active = 0
	}
}

// sight is what is seen now.
func (g *ground) sight() observed.Seen {
	s := g.seen
	s.Instances, s.Fleet.Instances, s.Proxies = map[discovery.InstanceID]observed.Sighting{}, nil, slices.Clone(g.seen.Proxies)
	for i := range s.Proxies {
		s.Proxies[i].Confirmed = s.Proxies[i].Connected && !g.deaf && s.Proxies[i].Nack == ""
	}
	for name, reading := range s.Gates {
		reading.At = g.now
		s.Gates[name] = reading
	}
	if g.reported {
		s.Loads, s.Witnesses = map[observed.Place]observed.Load{}, map[discovery.Colour]observed.Witness{}
	}
	for _, key := range g.sorted() {
		m := g.machines[key]
		if !m.gone {
			s.Fleet.Instances = append(s.Fleet.Instances, m.Instance)
		}
		if m.Drain != "" {
			s.Instances[key] = g.ask(m)
		}
		if g.reported {
			s.Loads[observed.Place{Colour: m.Colour, Addr: m.Addr}] = observed.Load{Held: m.status.Active, Admissions: observed.Admissions{Accepted: m.status.Accepted}, At: g.now}
			n := s.Witnesses[m.Colour].Active + m.status.Active
			s.Witnesses[m.Colour] = observed.Witness{Active: n, Reported: n, At: g.now}
		}
	}
	slices.SortFunc(s.Fleet.Instances, func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

// ask has the machine say what it holds; the eyes are the product's.
func (g *ground) ask(m *machine) observed.Sighting {
	status := m.status
	if m.tells {
		status.Returned, status.Ticketed = new(m.returned), new(m.returned)
	}
	if status.State == contract.Draining && status.Active == 0 {
		status.State = contract.Drained
	}
	status.Peers = map[string]contract.Peer{edge(1).String(): {Held: status.Active, Accepted: status.Accepted, Refused: status.Refused}}
	var err error
	switch {
	case m.dead:
		err = fmt.Errorf("drain %s: dial tcp %s: connect: %w", m.Drain, m.Addr, syscall.ECONNREFUSED)
	case m.deaf:
		err = fmt.Errorf("drain %s: no answer within 2s", m.Drain)
	}
	m.sight = m.sight.After(status, err, g.now)
	return m.sight
}

// look is one look of the controller, with every effect at once.
func (g *ground) look() {
	for range 50 {
		seen := g.sight()
		d := rollout.Step(g.state, seen, g.now)
		if d.Reason != g.reason {
			g.reason = d.Reason
			fmt.Fprintf(&g.log, "%s  %-10s  %s (%s)\n", g.now.Format("15:04:05.0"), g.state.Phase(), d.Reason.Text, d.Reason.Code)
		}
		if d.Changed {
			g.remember(d.Next)
		}
		if told := g.tell(rollout.Wished(g.state, g.sight(), g.now)); !d.Changed && !told {
			return
		}
	}
	g.t.Fatalf("Step never comes to rest: %v", g.reason)
}

func (g *ground) remember(s state.State) {
	data, err := state.Encode(s)
	if err != nil {
		g.t.Fatal(err)
	}
	if g.state, err = state.Decode(data); err != nil {
		g.t.Fatalf("a state that cannot be read back: %v\n%s", err, data)
	}
}

// tell has the instances and hooks hear what is wished; it reports whether that
// was new to one of them.
func (g *ground) tell(wish desired.Wish) bool {
	changed := false
	for _, key := range slices.Sorted(maps.Keys(wish.Orders)) {
		m, in := g.machines[key], wish.Orders[key]
		switch o := in.Drain; {
		case m.dead || m.deaf || in.ShownBy(m.status):
		case o == nil:
			m.status.State, m.status.Ceiling, m.status.Rollout, m.status.Epoch, m.status.Step = contract.Serving, nil, in.Serve.Rollout, in.Serve.Epoch, 0
			changed = true
		default:
			m.status.State, m.status.Ceiling, m.status.Rollout, m.status.Epoch, m.status.Step = contract.Draining, o.Ceiling, o.Rollout, o.Epoch, o.Step
			m.order, m.held, m.ordered = *o, m.status.Active-m.status.Asked, g.now
			changed = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wish.Hooks)) {
		o, run := wish.Hooks[key], g.seen.Hooks[key]
		switch {
		case run.Rollout != o.Rollout || run.Attempt != o.Attempt:
			g.seen.Hooks[key] = observed.HookRun{Rollout: o.Rollout, Attempt: o.Attempt, At: g.now}
			changed = true
		case !run.Done && g.now.Sub(run.At) >= 4*time.Second:
			run.Done, run.Err, run.At = true, g.hookErr, g.now
			g.seen.Hooks[key] = run
			changed = true
			if m := g.machines[key]; run.Err == "" {
				g.crash(m)
			}
		}
	}
	return changed
}

// do carries out a command that must be accepted.
func (g *ground) do(c rollout.Command) {
	g.t.Helper()
	next, answer, err := rollout.Apply(c, g.policy, g.state, g.sight(), g.now)
	if err != nil {
		g.t.Fatal(err)
	}
	g.remember(next)
	fmt.Fprintf(&g.log, "%s  %-10s  %s\n", g.now.Format("15:04:05.0"), "answer", answer.Text)
	g.look()
}

func (g *ground) promote(c discovery.Colour) {
	g.t.Helper()
	g.do(rollout.Promote{Service: "chat", Target: c, Force: true})
}
func (g *ground) pause()  { g.t.Helper(); g.do(rollout.Pause{Service: "chat"}) }
func (g *ground) resume() { g.t.Helper(); g.do(rollout.Resume{Service: "chat"}) }
func (g *ground) abort()  { g.t.Helper(); g.do(rollout.Abort{Service: "chat"}) }
