package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/spread"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// nextStep waits for the running step to end and for all that the next one needs, and
// orders it.
func nextStep(t *turn, old oldSide) Reason {
	r := t.state.Rollout
	if turned := turnedAway(t.situation); turned != nil {
		if t.stepRuns() {
			t.restep() // whom this step has not closed yet might be refused, too
		}
		return t.wait(turned)
	}
	if t.now.Before(r.StepAt) {
		if t.stepRuns() && t.overruns() {
			t.restep() // the room or window that this step was for went away
		}
		askGatesBefore(t, r.StepAt)
		t.wakeBy(r.StepAt)
		return t.paceReason(IsDraining)
	}
	if len(old.held) == 0 {
		if r.Policy.Hook != nil && len(old.noEndpoint) > 0 && len(old.unreachable)+len(old.late) == 0 {
			return callHooks(t, old)
		}
		return t.wait(stuck(t.situation, old))
	}
	if askCounts(t, old) {
		t.wakeBy(t.now.Add(recheck))
		return t.paceReason(FreshCounts)
	}
	if closed := followStepGates(t); closed != nil {
		holdAsked(t)
		return t.wait(closed)
	}
	return step(t, old)
}

// turnedAway holds the funnel while new clients still come to the draining side, more
// than it refused before: somebody sends them there, as an Envoy does that is cut off
// and serves, and whom the funnel lets go would be refused, too.
func turnedAway(s *situation) *blocker {
	r := s.state.Rollout
	by, total, began := refusedByPeers(s, s.members().old, r.Settled.Add(settle))
	usual := r.RefusedBefore * s.now.Sub(began).Seconds()
	if float64(total) <= max(fewRefusals, usual+3*math.Sqrt(usual)) {
		return nil
	}
	most := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		return cmp.Or(cmp.Compare(by[b], by[a]), cmp.Compare(a, b))
	})[0]
	from := most + whose(s, most)
	switch most {
	case "":
		from = "machines that the instances do not name"
	case contract.OtherPeers:
		from = "machines that are not told apart"
	}
	return blocked(TurnedAway, "waiting: %s still refuses new clients, most of them from %s; see who sends them there, and that every Envoy hears rolloutd", r.From, from)
}

// fewRefusals is how many refused connections are nobody in particular.
const fewRefusals = 4

// refusedByPeers sums up what the draining side has refused since from, and since when that is.
// Who comes from an instance's own machine and is no proxy is its health check.
func refusedByPeers(s *situation, members []*fact, from time.Time) (by map[string]uint64, total uint64, began time.Time) {
	by = map[string]uint64{}
	var known map[string]bool
	for _, f := range members {
		counts, at := s.seen.Instances[f.key].PeerRefusals.Since(from)
		if len(counts) == 0 {
			continue
		}
		if known == nil {
			known = machines(s)
		}
		own := s.state.Members[f.key].Addr.Addr().Unmap()
		for name, n := range counts {
			if name == own.String() && !known[name] && !own.IsLoopback() {
				continue
			}
			by[name] += n
			total += n
		}
		if began.IsZero() || at.Before(began) {
			began = at
		}
	}
	return by, total, began
}

// refusalRate is how many connections a second the colour refused lately.
func refusalRate(s *situation, c discovery.Colour) float64 {
	_, total, began := refusedByPeers(s, s.members().colour[c], time.Time{}.Add(1))
	if total == 0 {
		return 0
	}
	return float64(total) / max(1, s.now.Sub(began).Seconds())
}

// whose says which proxies run on the machine.
func whose(s *situation, machine string) string {
	for _, node := range s.state.Proxies {
		if at, ok := s.state.Machines[node]; ok && at.String() == machine {
			return fmt.Sprintf(" (%s)", node)
		}
	}
	return ""
}

// askCounts asks the instances that take part for their counts of now, and reports
// whether any has to answer first: a step is computed from what is held when it
// begins, so that what ended by itself counts, and what an instance was late with is
// not added to the next step. Where it depends on who is back, the target's are
// asked, too, if they answer.
func askCounts(t *turn, o oldSide) bool {
	r := t.state.Rollout
	since := units.Latest(r.StepAt, r.Settled, r.Turned)
	for _, f := range o.held {
		if f.heard.Before(since) {
			t.ask = append(t.ask, f.key)
		}
	}
	if t.countsReturns() {
		for _, f := range t.members().target {
			if f.answers && f.heard.Before(since) {
				t.ask = append(t.ask, f.key)
			}
		}
	}
	return len(t.ask) > 0
}

// askGatesBefore has the gates asked a moment before a step.
func askGatesBefore(t *turn, step time.Time) {
	r := t.state.Rollout
	asked := func(g policy.Gate) bool { return g.Asked(policy.AtStep) }
	if r.Aborting || !slices.ContainsFunc(r.Policy.Gates, asked) {
		return
	}
	ask := step.Add(-gatesAhead)
	if t.now.Before(ask) {
		t.wakeBy(ask)
		return
	}
	for _, g := range r.Policy.Gates {
		if asked(g) && t.seen.Gates[g.Name].At.Before(ask) {
			t.askGates = policy.AtStep
		}
	}
}

// step orders the next closes: as many as are allowed, shared out in proportion
// to what each instance holds. An instance that takes no part is told to hold, so
// that an order it never got cannot come late.
func step(t *turn, o oldSide) Reason {
	if t.countsReturns() {
		observe(t, true)
	}
	pace := t.nextPace()
	if pace.Stopped {
		return standStill(t, pace)
	}
	given, none := t.allowance(pace)
	if none != nil {
		goOnAsked(t, o, none)
		return t.wait(none)
	}
	setPace(t, pace)
	giveOut(t, o, given)
	return t.paceReason(IsDraining)
}

// giveOut orders a step that closes so many.
func giveOut(t *turn, o oldSide, given state.Allowance) {
	r := t.rollout()
	every := r.Policy.Funnel.Every.D()
	limit := t.limit()
	lastPart, lastFirst := t.lastStep()
	held := make([]int, len(o.held))
	for i, f := range o.held {
		held[i] = untold(t.situation, f)
	}
	part := spread.Shares(given.Close, held)
	leaveSome(o.held, held, part)
	first := spread.Starts(part, every)
	late := spread.Delay(spread.Schedule(lastPart, lastFirst, every), spread.Schedule(part, first, every), max(r.Cap, limit)+1, every)
	r.Step++
	r.OrderedAt, r.StepAt = t.now, t.now.Add(late+every+spread.PauseAfter(every))
	r.Cap, r.Given = limit, given
	t.hold()
	writeDown(t)
	for i, f := range o.held {
		if !t.state.Members[f.key].Counted {
			t.count(f.key)
		}
		m, ceiling := t.state.Members[f.key], f.held-f.asked-part[i]
		m.Quota = state.Quota{Ceiling: &ceiling, Share: part[i], Start: units.Duration(late + first[i]), Notice: noticeOf(t.situation, f)}
		t.put(f.key, m)
	}
	askGatesBefore(t, r.StepAt)
	t.wakeBy(r.StepAt)
}

// leaveSome gives one close of an instance that overstates to each other that would get none:
// what it says does not fall, so it would take all of every step.
func leaveSome(of []*fact, weights, part []int) {
	for i, f := range of {
		if part[i] > 0 || weights[i] == 0 || f.held != weights[i] {
			continue
		}
		most := -1
		for j, g := range of {
			if g.held != weights[j] && part[j] > 0 && (most < 0 || part[j] > part[most]) {
				most = j
			}
		}
		if most < 0 {
			return
		}
		part[i], part[most] = 1, part[most]-1
	}
}

// writeDown has the state remember what the counted members say now.
func writeDown(t *turn) {
	for _, f := range t.members().all {
		if m := t.state.Members[f.key]; m.Counted {
			if now := noted(t.situation, f.key, m); now != m.Counts {
				m.Counts = now
				t.put(f.key, m)
			}
		}
	}
}

// lastStep is the shares of the step that ends now and when the first close of each
// came, as if it had begun a step ago: it began earlier, by its own delay and the
// pause after it.
func (s *situation) lastStep() (part []int, first []time.Duration) {
	r := s.state.Rollout
	every := r.Policy.Funnel.Every.D()
	earlier := max(0, s.now.Sub(r.OrderedAt)-every)
	all := slices.Clone(r.Spent)
	for _, m := range s.state.Members {
		if m.Ceiling != nil && m.Share > 0 {
			all = append(all, state.Spent{Share: m.Share, Start: m.Start})
		}
	}
	for _, x := range all {
		part, first = append(part, x.Share), append(first, x.Start.D()-earlier)
	}
	return part, first
}

// standStill closes nothing for an interval, after which the pace is judged anew.
func standStill(t *turn, pace state.Pace) Reason {
	setPace(t, pace)
	if t.stepRuns() {
		t.restep()
	}
	r := t.rollout()
	r.StepAt = t.now.Add(r.Policy.Funnel.Every.D())
	t.wakeBy(r.StepAt)
	return t.paceReason(TargetSick)
}

// paceReason says how many connections the funnel lets go.
func (s *situation) paceReason(c Code) Reason {
	r := s.state.Rollout
	if r.Pace.Stopped {
		return reason(TargetSick, "waiting: %s; nothing is closed until %s answers and refuses nobody for %s", r.Pace.Why, r.To, r.Policy.Funnel.Every)
	}
	n, why := r.Pace.Of(s.limit())
	if r.Given.Close > 0 {
		n, why = r.Given.Close, r.Given.Why
	}
	text := fmt.Sprintf("%s lets at most %s go every %s", r.From, counted(n, "connection", "connections"), r.Policy.Funnel.Every)
	if why != "" {
		text += ": " + why
	}
	for _, f := range s.members().old {
		if strange := overstated(s, f); strange != "" {
			return reason(c, "%s; %s", text, strange)
		}
	}
	return Reason{Code: c, Text: text}
}

// noted is the member's counts with its process as it is seen now.
func noted(s *situation, key discovery.InstanceID, m state.Member) state.Counts {
	return m.Counts.Noted(s.seen.Instances[key], bounds(s, key, m))
}

// bounds is what a member may be taken for: one that says less than the proxies report holds
// that, and one that says more than they had reported until then at most what they bear out.
func bounds(s *situation, key discovery.InstanceID, m state.Member) state.Bounds {
	load, _ := s.load(m)
	most, ok := borneOut(s, &m)
	if !ok {
		return state.Bounds{Most: contract.MaxConnections, LetGo: math.MaxUint64}
	}
	if load.At.After(s.seen.Instances[key].At) {
		most = max(contract.MaxConnections, load.Held)
	}
	return state.Bounds{Least: load.Held, Most: most, LetGo: letGo(s, &m, s.seen.Instances[key].Status.Asked)}
}

// overstated says of an instance that says it holds more than the proxies bear out; empty
// when none does.
func overstated(s *situation, f *fact) string {
	n := weight(s, f)
	if n == f.held {
		return ""
	}
	load, _ := s.load(s.state.Members[f.key])
	return fmt.Sprintf("%s says that it holds %d connections, the proxies report %d; it is taken for %d", f.key, f.held, load.Held, n)
}

// weight is what a member counts where shares are taken: what it says that it holds, but
// no more than the proxies bear out. Its ceiling follows its own word all the same, so
// that it is empty in the end even if all its clients come past the proxies.
func weight(s *situation, f *fact) int {
	if !f.endpoint || !f.answers {
		return f.held // what the proxies report is newer
	}
	m := s.state.Members[f.key]
	if most, ok := borneOut(s, &m); ok {
		return min(f.held, most)
	}
	return f.held
}
