package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/returns"
	"github.com/sluice-proxy/sluice/rollout/spread"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Plan is what a promotion would do, computed before anything happens.
type Plan struct {
	Service discovery.Service `json:"service"`
	From    discovery.Colour  `json:"from"`
	To      discovery.Colour  `json:"to"`
	Policy  policy.Policy     `json:"policy"`
	// Connections is what From holds now.
	Connections int `json:"connections"`
	// Steps is how many steps the funnel needs; Takes how long the whole
	// promotion does, from promote to the last eviction.
	Steps int            `json:"steps"`
	Takes units.Duration `json:"takes"`
	// Batches is what each batch of a staggered promotion does; empty without.
	Batches []Batch `json:"batches,omitempty"`
	// PeakPerSecond is the highest rate of evictions.
	PeakPerSecond float64 `json:"peak_per_second"`
	// Window is the most evicted clients that may be on their way at once; 0 is no
	// bound. The automatic one grows where clients take long to return.
	Window int `json:"window,omitempty"`
	// Doubled is the most clients that are connected on both sides at once: those that are
	// asked within one notice. 0: none is asked.
	Doubled int `json:"doubled,omitempty"`
	// Room is the free capacity of the target; nil when not declared by all.
	Room *int `json:"room"`
	// Gates is what the policy's gates say now, in its order; empty where nobody asked.
	Gates []GateAnswer `json:"gates,omitempty"`
	// Notes are worth knowing; Problems make promote refuse unless forced.
	Notes    []string `json:"notes,omitempty"`
	Problems []string `json:"problems,omitempty"`

	by state.Basis // what returning clients are counted by
}

// Batch is some old instances that drain together.
type Batch struct {
	Instances   []discovery.InstanceID `json:"instances"`
	Connections int                    `json:"connections"`
	Takes       units.Duration         `json:"takes"`
}

// foreseen is how long an evicted client is taken to be on its way before the
// first one was.
const foreseen = 5 * time.Second

// smallestWindow is three standard deviations of the connections that come by
// themselves while an evicted client is on its way: 3·√(rate · return time).
func smallestWindow(rate float64) int {
	return int(math.Ceil(3 * math.Sqrt(rate*foreseen.Seconds())))
}

// MakePlan computes what promoting target would do. The error is a *Refusal that
// no force overrides.
func MakePlan(s state.State, seen observed.Seen, target discovery.Colour, terms policy.Policy, now time.Time) (Plan, error) {
	if target != discovery.Blue && target != discovery.Green {
		return Plan{}, refuse(BadRequest, "%s: %q is no colour; use blue or green", s.Service, target)
	}
	if no := refuseUnsettled(s, seen, now); no != nil {
		return Plan{}, no
	}
	if s.Retired {
		return Plan{}, refuse(UnknownService, "%s left the configuration; put it back to promote it", s.Service)
	}
	if unread := newSituation(s, seen, now).unread(); unread != nil {
		return Plan{}, refuse(NotReady, "%s; mend that first", unread.Text)
	}
	if bad := terms.Check(); len(bad) > 0 {
		key := slices.Min(slices.Collect(maps.Keys(bad)))
		return Plan{}, refuse(BadRequest, "%s: %v", s.Service, bad[key])
	}
	s.Rollout = &state.Rollout{From: target.Other(), To: target, Policy: terms}
	before := newSituation(s, seen, now)
	p := Plan{Service: s.Service, From: target.Other(), To: target, Policy: terms}
	if !slices.ContainsFunc(before.members().target, func(f *fact) bool { return f.serves }) {
		return Plan{}, refuse(NoTarget, "%s: %s has no healthy instance to take connections; %s", s.Service, target, cmp.Or(before.claimed(target), "start and register some first"))
	}
	planOld(before, &p)
	planTarget(before, &p)
	planProxies(before, &p)
	p.Window = before.bound()
	p.reckon(before, before.batches())
	planTimes(before, &p)
	return p, nil
}

// batches is what each batch holds, in the order in which they would go; a
// single one without stagger.
func (s *situation) batches() [][]*fact {
	left := s.members().old
	if s.state.Rollout.Policy.Stagger.Instances.IsZero() {
		return [][]*fact{left}
	}
	return slices.Collect(slices.Chunk(s.inTurn(left), max(1, s.batchSize())))
}

// reckon computes how long it takes when nothing holds it up. A window that is
// smaller than the cap is taken to let a whole window go each step.
func (p *Plan) reckon(s *situation, batches [][]*fact) {
	f := p.Policy.Funnel
	if w := p.Policy.Window; w > 0 {
		f.Close = min(f.Close, int(w))
		if !p.by.Counted() {
			p.Takes += units.Duration(returns.Measuring)
		}
	}
	p.Takes += units.Duration(p.Policy.Soak.D() + settle + p.Policy.Grace.D())
	for i, batch := range batches {
		held, ids := 0, make([]discovery.InstanceID, len(batch))
		for i, f := range batch {
			held, ids[i] = held+weight(s, f), f.key
		}
		p.Batches = append(p.Batches, Batch{Instances: ids, Connections: held, Takes: units.Duration(spread.Finish(f, held).Round(100 * time.Millisecond))})
		p.Steps += (held + f.Close - 1) / f.Close
		last := i == len(batches)-1
		switch took := spread.Finish(f, held); {
		case last:
			p.Takes += units.Duration(took)
		case held > 0:
			steps := min((held+f.Close-1)/f.Close, int(spread.Far/f.Every.D()))
			p.Takes += units.Duration(f.Every.D()*time.Duration(steps)) + p.Policy.Stagger.Soak
		default:
			p.Takes += p.Policy.Stagger.Soak
		}
		p.Takes = min(p.Takes, units.Duration(spread.Far))
	}
	if len(batches) < 2 {
		p.Batches = nil
	}
	p.Takes = min(p.Takes+p.Policy.Notice, units.Duration(spread.Far))
	p.Doubled = p.doubled(s)
	p.Takes = units.Duration(p.Takes.D().Round(100 * time.Millisecond))
	p.PeakPerSecond = float64(min(p.Connections, f.Close)) / f.Every.D().Seconds()
}

// doubled is the worst case of clients that are connected twice: as many as are asked
// within one notice, at the cap, of those whose instance can ask.
func (p *Plan) doubled(s *situation) int {
	asking := 0
	for _, f := range s.members().old {
		if p.Policy.Notice > 0 && canAsk(s, f) {
			asking += weight(s, f)
		}
	}
	notice, f := p.Policy.Notice.D(), p.Policy.Funnel
	n := int(min(float64(asking), math.Ceil(float64(f.Close)*float64(notice)/float64(f.Every.D()))))
	if p.Policy.Double > 0 {
		n = min(n, p.Policy.Double)
	}
	return n
}

// planTimes compares how long it takes with the deadline and with the instances'
// kill timers.
func planTimes(s *situation, p *Plan) {
	if end := p.Policy.Deadline; end > 0 && p.Takes > end {
		p.Problems = append(p.Problems, fmt.Sprintf("it takes about %s, longer than the deadline of %s; raise the pace or the deadline", p.Takes, end))
	}
	for _, f := range s.members().old {
		kill := p.Policy.KillAfter
		if f.instance != nil {
			kill = cmp.Or(units.Duration(f.instance.KillAfter), kill)
		}
		takes := p.Takes
		for _, b := range p.Batches {
			if slices.Contains(b.Instances, f.key) {
				takes = b.Takes + p.Policy.Notice
			}
		}
		if kill > 0 && takes > kill {
			p.Problems = append(p.Problems, fmt.Sprintf("%s is killed %s after it begins to drain, and its drain takes about %s; raise kill_after or the pace", f.key, kill, takes))
		}
	}
}

// planOld looks at the side that lets go.
func planOld(s *situation, p *Plan) {
	for _, f := range s.members().old {
		if p.Policy.Notice > 0 && f.endpoint && s.seen.Instances[f.key].Err == "" && !canAsk(s, f) {
			p.Notes = append(p.Notes, fmt.Sprintf("%s cannot ask its clients to come over: they are let go as without a notice", f.key))
		}
		key, n, sight := f.key, weight(s, f), s.seen.Instances[f.key]
		p.Connections += n
		if strange := overstated(s, f); strange != "" {
			p.Notes = append(p.Notes, strange)
		}
		switch {
		case !f.endpoint && p.Policy.Hook == nil:
			p.Notes = append(p.Notes, fmt.Sprintf("%s has no drain endpoint: the rollout waits until you stop and deregister it", key))
		case !f.endpoint && !f.known:
			p.Notes = append(p.Notes, fmt.Sprintf("%s has no drain endpoint and the proxies do not report what it holds yet", key))
		case !f.endpoint && n > p.Policy.Funnel.Close:
			p.Problems = append(p.Problems, fmt.Sprintf("%s holds %d connections, which its hook ends all at once, and a step may close %d; raise the pace, or put a sidecar in front of it", key, n, p.Policy.Funnel.Close))
		case !f.endpoint:
		case sight.Err != "":
			p.Problems = append(p.Problems, fmt.Sprintf("%s cannot be told to let go (%s)", key, sight.Err))
		case sight.At.IsZero():
			p.Problems = append(p.Problems, fmt.Sprintf("%s has not been asked yet what it holds, try again in a moment", key))
		}
	}
}

// planTarget looks at the target: its room, and that it holds nothing of the release
// before.
func planTarget(s *situation, p *Plan) {
	rate := 0.0
	p.by = state.ByTickets
	for _, f := range s.members().colour[p.To] {
		key, m, sight := f.key, s.state.Members[f.key], s.seen.Instances[f.key]
		if !m.Departed.IsZero() && sight.Status.Held() > 0 {
			p.Problems = append(p.Problems, fmt.Sprintf("%s of the release before still holds %d connections on %s", key, sight.Status.Held(), p.To))
		}
		switch {
		case f.instance == nil || !f.serves || !f.endpoint:
		case sight.Err != "":
			p.Problems = append(p.Problems, fmt.Sprintf("%s cannot be told to take new connections, so it gets none (%s)", key, sight.Err))
		case sight.At.IsZero():
			p.Problems = append(p.Problems, fmt.Sprintf("%s has not said yet whether it takes new connections, try again in a moment", key))
		}
		if m.Departed.IsZero() {
			p.by = p.by.OrBelow(told(s, key, m))
		}
	}
	who := "connections"
	if p.by == state.ByReturns && !noOwnReturns(s) {
		p.by, who = state.ByExcess, "returning clients"
	}
	for _, sight := range s.seen.Instances {
		if p.by == state.ByExcess {
			rate += sight.ReturnedPerSecond
		} else {
			rate += sight.PerSecond
		}
	}
	if least := smallestWindow(rate); p.Policy.Window > 0 && !p.by.Counted() && int(p.Policy.Window) < least {
		p.Problems = append(p.Problems, fmt.Sprintf("a window of %d cannot be kept, because %.0f %s a second come by themselves and those that were let go are not told apart from them; the smallest is %d", p.Policy.Window, rate, who, least))
	}
	if p.Policy.Window > 0 && !p.by.Counted() {
		p.Notes = append(p.Notes, fmt.Sprintf("who is on his way to %s is estimated: where some clients return at once and others slowly, the window of %d may be exceeded; have clients show tickets", p.To, p.Policy.Window))
	}
	if p.Policy.Window > 0 && p.by == state.ByReturns {
		p.Notes = append(p.Notes, fmt.Sprintf("who is on his way to %s is counted by who says that he was here before: should clients begin to return by themselves meanwhile, the window of %d may be exceeded until more return than were let go; have clients show tickets", p.To, p.Policy.Window))
	}
	if room, known := s.room(); known {
		p.Room = &room
		switch inPlace := p.Policy.Stagger.InPlace; {
		case room < p.Connections && inPlace:
			p.Notes = append(p.Notes, fmt.Sprintf("%s has room for %d of the %d connections now: replace emptied %s instances by %s ones as the rollout goes on", p.To, room, p.Connections, p.From, p.To))
		case room < p.Connections:
			p.Problems = append(p.Problems, fmt.Sprintf("%s has room for %d of the %d connections", p.To, room, p.Connections))
		}
	} else if p.Policy.Stagger.InPlace {
		p.Problems = append(p.Problems, fmt.Sprintf("in place needs to know when %s is full; declare the capacity of its instances, or set capacity in the policy", p.To))
	}
	for _, f := range s.members().all {
		if f.twin.rival && f.key < f.twin.with {
			p.Problems = append(p.Problems, f.rivalry(s.state))
		}
		if f.twin.alias {
			p.Notes = append(p.Notes, f.aliasing(s.state))
		}
		if f.recoloured && f.colour == p.To {
			p.Problems = append(p.Problems, fmt.Sprintf("%s: %s", f.key, f.recolouring()))
		} else if f.recoloured {
			p.Notes = append(p.Notes, fmt.Sprintf("%s: %s", f.key, f.recolouring()))
		}
	}
	if s.seen.Fleet.Err != "" {
		p.Problems = append(p.Problems, s.seen.Fleet.Err)
	}
	if s.seen.Fleet.Suspect != "" {
		p.Problems = append(p.Problems, s.seen.Fleet.Suspect)
	}
}

// planProxies looks at who has to hear of the switch.
func planProxies(s *situation, p *Plan) {
	connected := 0
	for _, x := range s.seen.Proxies {
		if !x.Routes {
			continue
		}
		if x.Connected {
			connected++
		}
		if x.Connected && x.Nack != "" {
			p.Problems = append(p.Problems, fmt.Sprintf("proxy %s refused its configuration: %s", x.Node, x.Nack))
		}
	}
	switch known := len(s.state.Proxies); {
	case connected == 0 && known == 0:
		p.Problems = append(p.Problems, "no proxy is connected, so nobody would hear where new connections go")
	case connected == 0:
		p.Notes = append(p.Notes, "no proxy is connected yet, and nothing is closed before one is: known from before are "+names(s.state.Proxies))
	}
	if away := len(s.state.Proxies) - connected; connected > 0 && away > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s: each is waited for until no instance has heard of it for %s, or until rolloutctl proxies forget", counted(away, "known proxy is not connected", "known proxies are not connected"), units.Duration(silence)))
	}
	if s.seen.Unpublished != "" {
		p.Problems = append(p.Problems, "the proxies cannot be told: "+s.seen.Unpublished)
	}
}

// Outlook is what a running rollout has before it, if nothing comes in between.
// It decides nothing: it is what operators are shown.
type Outlook struct {
	// Turns is every member that lets its connections go, with the batch in which
	// it does: the one that it is or was in, else the one that it would be in. 0
	// is none: there is no stagger, or it has nothing to let go.
	Turns map[discovery.InstanceID]int
	// Limit is the most closes of the next step: the cap, or more when it hurries.
	// Pace is that with the adaptive pace, and Why says why it is less.
	Limit, Pace int
	Why         string
	// Window is the most clients that may be on their way; 0 is no bound.
	Window int
}

// Foresee tells what the running rollout has before it; the zero value without
// one.
func Foresee(s state.State, seen observed.Seen, now time.Time) Outlook {
	r := s.Rollout
	if r == nil {
		return Outlook{}
	}
	ahead := newSituation(s, seen, now)
	out := Outlook{Turns: map[discovery.InstanceID]int{}, Limit: ahead.limit(), Window: ahead.bound()}
	out.Pace, out.Why = r.Pace.Of(out.Limit)
	for _, f := range ahead.members().old {
		out.Turns[f.key] = s.Members[f.key].Turn
	}
	if r.Policy.Stagger.Instances.IsZero() {
		return out
	}
	batch := r.Batch
	for turn := range slices.Chunk(ahead.inTurn(ahead.sortOld().waiting), max(1, ahead.batchSize())) {
		batch++
		for _, f := range turn {
			out.Turns[f.key] = batch
		}
	}
	return out
}
