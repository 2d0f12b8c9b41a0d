package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

const (
	// silence is how long no instance may have heard of a lost proxy before nobody waits
	// for it any more.
	silence = 30 * time.Second
	// proxyForgotten is how long a proxy may be lost before nobody waits for it any more
	// although the instances cannot say that they do not hear of it.
	proxyForgotten = 24 * time.Hour
)

// hearing is what all members together hear of machines: whose connections they hold, or
// took or refused lately. An Envoy that is cut off from rolloutd and serves looks like a
// dead one until it is heard there.
type hearing struct {
	// mute is a member that cannot say, so that nothing is proven of anybody; empty if
	// all can.
	mute discovery.InstanceID
	// since is when the last of them began to say, by which all have said it last.
	since, by time.Time
	// heard is a member for each machine that it hears now; quiet is since when nobody has
	// heard any of the others that are listed.
	heard map[string]discovery.InstanceID
	quiet map[string]time.Time
	// stranger is a machine that is heard and is no known proxy's; hushed is since when
	// no other stranger was.
	stranger string
	hushed   time.Time
}

// hear asks all members.
func hear(s *situation) *hearing {
	if s.memo.hearing != nil {
		return s.memo.hearing
	}
	h := &hearing{heard: map[string]discovery.InstanceID{}, quiet: map[string]time.Time{}}
	s.memo.hearing = h
	for i := range s.members().all {
		f := &s.members().all[i]
		if f.dead {
			continue
		}
		sight := s.seen.Instances[f.key]
		if !f.endpoint || !f.answers || sight.Peers.Since.IsZero() {
			h.mute = f.key
			return h
		}
		h.since = units.Latest(h.since, sight.Peers.Since)
		if h.by.IsZero() || sight.At.Before(h.by) {
			h.by = sight.At
		}
		for name := range sight.Status.Peers {
			if since, quiet := sight.Peers.Quiet[name]; quiet {
				h.quiet[name] = units.Latest(h.quiet[name], since)
			} else if h.heard[name] == "" {
				h.heard[name] = f.key
			}
		}
	}
	known := machines(s)
	for name := range h.heard {
		if !known[name] && name != contract.OtherPeers && (h.stranger == "" || name < h.stranger) {
			h.stranger = name
		}
	}
	for name, since := range h.quiet {
		if !known[name] {
			h.hushed = units.Latest(h.hushed, since)
		}
	}
	return h
}

// machines is where the known proxies run.
func machines(s *situation) map[string]bool {
	known := map[string]bool{}
	for _, at := range s.state.Machines {
		known[at.String()] = true
	}
	for _, p := range s.seen.Proxies {
		if p.Connected && p.Routes {
			known[p.Addr.String()] = true
		}
	}
	return known
}

// unproven is nil once the lost proxy is proven to serve nobody here: for one silence no
// instance has held, taken or refused a connection from its machine. It may have come by
// another address than it has for rolloutd; so where its own was never heard, no stranger
// may have been either.
func unproven(s *situation, x lost) *blocker {
	h := hear(s)
	told := func(format string, args ...any) *blocker {
		return blocked(Unconfirmed, "waiting: proxy %s is not connected, and %s; have it connect again, or if it is gone: rolloutctl proxies forget %s", x.node, fmt.Sprintf(format, args...), word(x.node))
	}
	machine := x.addr.String()
	_, listed := h.quiet[machine]
	switch {
	case h.mute != "":
		return told("%s does not say who is connected to it", h.mute)
	case !x.addr.IsValid():
		return told("where it ran is not known")
	case h.heard[machine] != "":
		return told("%s has connections from its machine %s%s", h.heard[machine], machine, neighbour(s, x))
	case h.heard[contract.OtherPeers] != "":
		return told("%s has connections from machines that it does not tell apart", h.heard[contract.OtherPeers])
	case !listed && h.stranger != "":
		return told("%s has connections from %s, which is no known proxy", h.heard[h.stranger], h.stranger)
	}
	since := units.Latest(x.since, h.since, h.quiet[machine], h.quiet[contract.OtherPeers])
	if !listed {
		since = units.Latest(since, h.hushed)
	}
	if h.by.Sub(since) >= silence {
		return nil
	}
	end := since.Add(silence)
	return blockedUntil(units.Latest(end, s.now.Add(recheck)), Unconfirmed, "waiting: proxy %s is not connected; it is left behind at %s unless an instance hears of it", x.node, clock(end))
}

// neighbour says who is connected from the same machine: what is heard from there may be
// that one's.
func neighbour(s *situation, x lost) string {
	for _, p := range s.seen.Proxies {
		if p.Connected && p.Addr == x.addr {
			return ", where " + p.Node + " is, too"
		}
	}
	return ""
}

// awaitLost names the first lost proxy that had not acknowledged what is needed and is
// not proven to serve nobody.
func awaitLost(s *situation, n need) *blocker {
	var why *blocker
	others := 0
	for _, x := range lostProxies(s) {
		if p, _ := s.proxy(x.node); n.met(p) {
			continue
		}
		if why != nil {
			others++
		} else {
			why = unproven(s, x)
		}
	}
	if others > 0 {
		why.Text += fmt.Sprintf(" (%s lost, too)", counted(others, "other is", "others are"))
	}
	return why
}

// word is a node id as it is written on a command line.
func word(node string) string {
	if strings.ContainsFunc(node, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.:/@", r)
	}) {
		return strconv.Quote(node)
	}
	return node
}

// Forget is an operator's word that a proxy is gone: nobody waits for it any more. One
// that is connected is not gone. Should it come back, it is a new one.
type Forget struct {
	Service discovery.Service
	Node    string
}

func (c Forget) service() discovery.Service { return c.Service }

func (c Forget) apply(_ policy.Policy, s state.State, seen observed.Seen, now time.Time) (state.State, Answer, error) {
	t := newTurn(s, seen, now)
	if p, _ := t.proxy(c.Node); p.Connected {
		return s, Answer{}, refuse(ProxyConnected, "%s: proxy %s is connected; stop that Envoy, or have it not route to %s any more", s.Service, c.Node, s.Service)
	}
	if _, known := slices.BinarySearch(s.Proxies, c.Node); !known {
		return s, Answer{}, refuse(UnknownProxy, "%s: nobody waits for a proxy %s; rolloutctl proxies lists them", s.Service, c.Node)
	}
	t.forgetProxies(c.Node)
	answer := Answer{Text: fmt.Sprintf("%s: nobody waits for proxy %s any more", s.Service, c.Node)}
	if r := s.Rollout; r != nil {
		answer.Rollout = r.ID
		t.rollout().LeftBehind = append(t.state.Rollout.LeftBehind, "proxy "+c.Node)
		t.note("proxy " + c.Node + " is gone, by an operator's word: left behind")
	}
	return t.state, answer, nil
}

// need is what a proxy has to have acknowledged.
type need bool

// met reports whether the proxy has acknowledged that. One that is not connected any
// more had when it was lost, and what counts has not changed since.
func (n need) met(p observed.Proxy) bool { return p.Confirmed || p.Routed && n == routesOnly }

const (
	// routesOnly: the colours' shares of new connections.
	routesOnly need = false
	// everything: also who is open in each colour.
	everything need = true
)

// whereTo is what decides where the proxies send new connections: the routes, and the
// endpoints, too, where a member drains in a colour that gets new ones.
func (s *situation) whereTo() need {
	weights := s.state.Weights()
	for _, f := range s.members().all {
		if f.drains && weights[f.colour] > 0 {
			return everything
		}
	}
	return routesOnly
}

// awaitProxies is what to wait for; nil when every known proxy has acknowledged what is
// needed.
func awaitProxies(s *situation, n need) *blocker {
	if unconfirmed := s.unconfirmed(n); unconfirmed != nil {
		return unconfirmed
	}
	return awaitLost(s, n)
}

// unconfirmed says which connected proxies have not acknowledged what is needed.
func (s *situation) unconfirmed(n need) *blocker {
	if s.seen.Unpublished != "" {
		return blocked(Unpublished, "waiting: the proxies were not told: %s", s.seen.Unpublished)
	}
	var behind []string
	for _, p := range s.seen.Proxies {
		switch {
		case !p.Routes:
		case p.Connected && p.Nack != "":
			return blocked(Nacked, "waiting: proxy %s refused its configuration (%s); mend the cause: what was refused is sent again within a minute, and at once when rolloutd gets SIGHUP", p.Node, p.Nack)
		case p.Connected && !n.met(p):
			behind = append(behind, p.Node)
		}
	}
	if len(behind) == 0 {
		return s.unproxied()
	}
	return blocked(Unconfirmed, "waiting: %s not acknowledged yet: %s", counted(len(behind), "proxy has", "proxies have"), names(behind))
}
