package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/control"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/xds/reports"
)

const (
	// loadsGap is the least time between two looks at what the proxies report:
	// many proxies report all the time.
	loadsGap = 500 * time.Millisecond
	// loadsBeat is the most time between two looks: silence brings no report.
	loadsBeat = time.Second
	// proofDelay is how long after the start nothing is proven: proxies that hold
	// connections may not have found this process yet.
	proofDelay = 5 * time.Second
	// lostRetention is how long a proxy that is no longer connected counts as one
	// that may hold connections.
	lostRetention = 24 * time.Hour
)

// loads translates what proxies report of clusters into what they carry of each
// service. Methods may be called concurrently.
type loads struct {
	pub   *publisher
	start time.Time

	mu          sync.Mutex
	nodes       map[string]time.Time // proxies that may hold connections, and when they were last connected
	traffic     map[discovery.Service]traffic
	differences map[discovery.Service]map[discovery.InstanceID]rollout.Difference

	// Owned by run: differs compares, and waited is which proxies a service waited for.
	differs map[discovery.Service]*control.Differ
	waited  map[discovery.Service]map[string]bool
}

// traffic is what the proxies carry of one service. Never changed once made.
type traffic struct {
	loads     map[observed.Place]observed.Load
	witnesses map[discovery.Colour]observed.Witness
	overflow  map[discovery.Colour]uint64
}

func newLoads(pub *publisher) *loads {
	return &loads{pub: pub, start: time.Now(), nodes: map[string]time.Time{}, differs: map[discovery.Service]*control.Differ{}, waited: map[discovery.Service]map[string]bool{}}
}

// Loads returns what the proxies reported of a service when run looked last.
func (l *loads) Loads(service discovery.Service) (map[observed.Place]observed.Load, map[discovery.Colour]observed.Witness) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.traffic[service]
	return t.loads, t.witnesses
}

// views adds the newest words of instances and proxies, and the lasting differences, to
// the controller's views: a service of which nothing else is new was looked at a while ago.
func (l *loads) views(control *control.Controller) (map[discovery.Service]rollout.View, <-chan struct{}) {
	all, newer := control.Views()
	l.mu.Lock()
	defer l.mu.Unlock()
	out := maps.Clone(all)
	for name, v := range out {
		if heard := control.Heard(name); heard != nil {
			v.Seen.Instances = heard
		}
		if t, ok := l.traffic[name]; ok {
			v.Seen.Loads, v.Seen.Witnesses = t.loads, t.witnesses
		}
		v.Differences = l.differences[name]
		out[name] = v
	}
	return out, newer
}

// run looks at what is reported every loadsGap at most and gives notice of the services
// that it concerns, until ctx ends.
func (l *loads) run(ctx context.Context, control *control.Controller) error {
	beat := time.NewTicker(loadsBeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.pub.hub.Changed():
		case <-beat.C:
		}
		views, _ := control.Views()
		control.NoticeOf(l.look(views, control.Heard, time.Now())...)
		select {
		case <-ctx.Done():
		case <-time.After(loadsGap):
		}
	}
}

// look computes everything anew and returns the services that have to be looked at: of
// which something else is reported than before, or where a decision waits for a report.
func (l *loads) look(views map[discovery.Service]rollout.View, heard func(discovery.Service) map[discovery.InstanceID]observed.Sighting, now time.Time) (news []discovery.Service) {
	nodes, away := l.holders(now)
	all := map[discovery.Service]traffic{}
	differences := map[discovery.Service]map[discovery.InstanceID]rollout.Difference{}
	l.mu.Lock()
	before := l.traffic
	l.mu.Unlock()
	for name, tcp := range l.pub.carries() {
		v := views[name]
		t := l.of(name, tcp, nodes, l.left(v.State, name, away), now)
		if all[name] = t; !t.same(before[name]) || awaits(v.State) && len(t.loads)+len(t.witnesses) > 0 {
			news = append(news, name)
		}
	}
	for name, v := range views {
		if l.differs[name] == nil {
			l.differs[name] = &control.Differ{}
		}
		if v.Seen.Loads = all[name].loads; len(v.Seen.Loads) > 0 {
			v.Seen.Instances = heard(name)
		}
		differences[name] = l.differs[name].Compare(v.State.Members, v.Seen, now)
	}
	maps.DeleteFunc(l.differs, func(name discovery.Service, _ *control.Differ) bool { _, ok := views[name]; return !ok })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.traffic, l.differences = all, differences
	return news
}

// awaits reports whether a decision may wait for the proxies to say once more what they
// said before.
func awaits(s state.State) bool {
	if s.Rollout != nil || s.Unsettled || s.Retired {
		return true
	}
	for _, m := range s.Members {
		if !m.Departed.IsZero() || m.Outgoing {
			return true
		}
	}
	return false
}

// same reports whether the same is reported, at whatever time.
func (t traffic) same(was traffic) bool {
	return maps.EqualFunc(t.loads, was.loads, func(a, b observed.Load) bool {
		return a.Held == b.Held && a.Admissions == b.Admissions && a.PerSecond == b.PerSecond && slices.Equal(a.Silent, b.Silent)
	}) && maps.EqualFunc(t.witnesses, was.witnesses, func(a, b observed.Witness) bool {
		return a.Active == b.Active && a.Reported == b.Reported && a.ConnectP99 == b.ConnectP99 && a.Refused == b.Refused &&
			a.At.IsZero() == b.At.IsZero() && slices.Equal(a.Missing, b.Missing)
	})
}

// left tells which of the proxies that are away the service does not wait for any more:
// they are gone, and what they held is.
func (l *loads) left(stored state.State, name discovery.Service, away map[string]bool) (gone func(node string) bool) {
	waited := l.waited[name]
	if waited == nil {
		waited = map[string]bool{}
		l.waited[name] = waited
	}
	for _, node := range stored.Proxies {
		waited[node] = true
	}
	maps.DeleteFunc(waited, func(node string, _ bool) bool {
		_, waits := slices.BinarySearch(stored.Proxies, node)
		return !waits && !away[node]
	})
	return func(node string) bool {
		if !away[node] || !waited[node] {
			return false
		}
		_, waits := slices.BinarySearch(stored.Proxies, node)
		return !waits
	}
}

// holders lists every proxy that may hold connections: those that are connected for
// configuration or were within lostRetention, and which of them are away. What one that is
// away held is a bound until its service does not wait for it any more: then it is gone.
func (l *loads) holders(now time.Time) (nodes []string, away map[string]bool) {
	connected, lost := l.pub.nodes()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, node := range connected {
		l.nodes[node] = now
	}
	for node, at := range lost {
		if _, ok := l.nodes[node]; !ok {
			l.nodes[node] = at
		}
	}
	maps.DeleteFunc(l.nodes, func(_ string, at time.Time) bool { return now.Sub(at) > lostRetention })
	away = map[string]bool{}
	for node, at := range l.nodes {
		if !at.Equal(now) {
			away[node] = true
		}
	}
	return slices.Sorted(maps.Keys(l.nodes)), away
}

// of sums up what is reported of a service's two clusters, but by proxies that are gone.
func (l *loads) of(name discovery.Service, tcp bool, nodes []string, gone func(string) bool, now time.Time) traffic {
	out := traffic{
		loads: map[observed.Place]observed.Load{}, witnesses: map[discovery.Colour]observed.Witness{},
		overflow: map[discovery.Colour]uint64{},
	}
	for _, c := range discovery.Colours {
		reported := l.pub.hub.LoadBut(envoy.ClusterName(name, c), gone)
		for addr, e := range reported.Endpoints {
			out.loads[observed.Place{Colour: c, Addr: addr}] = observed.Load{
				Held: e.Held, Admissions: observed.Admissions{Accepted: e.Issued, Refused: e.Errors}, PerSecond: e.PerSecond, At: e.At, Silent: e.Silent,
			}
		}
		for _, count := range reported.Counts {
			out.overflow[c] += count.Overflow
		}
		holders := slices.DeleteFunc(slices.Clone(nodes), gone)
		if w, ok := witness(holders, reported.Counts, tcp); ok && now.Sub(l.start) >= proofDelay {
			for _, node := range holders { // a stranger's report is no witness
				w.Reported += reported.Said[node]
			}
			out.witnesses[c] = w
		}
	}
	return out
}

// witness sums up the counters of one colour over every proxy that may hold
// connections: the nodes, which are sorted, and every other proxy that sends counters. false: there is no
// such proxy, and then nothing is proven either. After a hot restart the new process's
// counters are about the old one's connections, too.
func witness(nodes []string, counts []reports.Count, tcp bool) (observed.Witness, bool) {
	if len(counts) == 0 {
		return observed.Witness{Missing: nodes}, len(nodes) > 0
	}
	var w observed.Witness
	silent := map[string]bool{}
	for _, node := range nodes {
		silent[node] = true
	}
	covered := map[string]bool{}
	for _, c := range counts {
		covered[c.Covers] = c.Covers != "" && !c.Silent && !c.At.IsZero()
	}
	for _, c := range counts {
		if covered[c.Node] {
			continue
		}
		silent[c.Node] = c.Silent || c.At.IsZero()
		active := c.Requests + c.Pending
		if tcp {
			// A connection that is being opened is no request yet.
			active = max(active, c.Connections)
		}
		w.Active += active
		w.ConnectP99 = max(w.ConnectP99, c.ConnectP99)
		w.Refused += max(c.Overflow, c.Refused)
		if !silent[c.Node] && (w.At.IsZero() || c.At.Before(w.At)) {
			w.At = c.At
		}
	}
	for node, is := range silent {
		if is && !covered[node] {
			w.Missing = append(w.Missing, node)
		}
	}
	slices.Sort(w.Missing)
	return w, len(silent) > 0
}

// carries lists the services that proxies may carry, and whether as raw TCP.
func (p *publisher) carries() map[discovery.Service]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.carried()
}

// carried is the same while p.mu is held.
func (p *publisher) carried() map[discovery.Service]bool {
	out := map[discovery.Service]bool{}
	for name := range p.good {
		out[name] = false
	}
	for _, s := range p.config.Services {
		out[s.Name] = s.Protocol == edge.TCP
	}
	return out
}

// nodes lists the proxies that route to some service and are connected, and when the
// others were lost.
func (p *publisher) nodes() (connected []string, lost map[string]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lost = map[string]time.Time{}
	for _, x := range p.proxies {
		if p.foreign(x) {
			continue
		}
		if x.Connected {
			connected = append(connected, x.Node)
		} else {
			lost[x.Node] = x.Lost
		}
	}
	return connected, lost
}

// list is every proxy in the operator's words, with how its reports fare.
func (l *loads) list() []api.Proxy {
	reporters := map[string]reports.Reporter{}
	for _, r := range l.pub.hub.Reporters() {
		reporters[r.Node] = r
	}
	all := l.pub.list()
	for i, p := range all {
		r := reporters[p.Node]
		all[i].Reports = api.Reporting{
			Loads: optional(r.Loads), Counters: optional(r.Counters), Silent: r.Silent,
			Partial: r.Partial,
			Trouble: r.Trouble, Refused: r.Refused, Ignored: r.Ignored,
		}
	}
	return all
}

// optional is nil for a time that never was.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
