package rollout

import (
	"time"
)

// proxyPatience is how long a proxy that vanished is waited for before it is
// named and left behind; draining instances refuse by themselves.
const proxyPatience = 30 * time.Second

// need is what a proxy has to have acknowledged.
type need bool

const (
	// routesOnly: the colours' shares of new connections.
	routesOnly need = false
	// everything: also who is open in each colour.
	everything need = true
)

// met reports whether the proxy has acknowledged that. One that is not connected any
// more had when it was lost, and what counts has not changed since.
func (n need) met(p Proxy) bool { return p.Confirmed || p.Routed && n == routesOnly }

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

// awaitProxies leaves a proxy behind that has been away for too long, and returns what
// to wait for; nil when every known proxy has acknowledged what is needed.
func awaitProxies(t *turn, n need) *blocker {
	if unconfirmed := t.unconfirmed(n); unconfirmed != nil {
		return unconfirmed
	}
	node, end, absent := t.absentProxy(n)
	switch {
	case !absent:
		return nil
	case t.now.Before(end):
		return blockedUntil(end, Unconfirmed, "waiting: proxy %s is not connected; it is left behind at %s", node, clock(end))
	}
	t.forgetProxy(node)
	t.rollout().LeftBehind = append(t.state.Rollout.LeftBehind, "proxy "+node)
	t.note("proxy " + node + " is not connected and was left behind")
	return blockedUntil(t.now, Unconfirmed, "proxy %s is left behind", node)
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
			return blocked(Nacked, "waiting: proxy %s refused its configuration (%s); mend the cause, then restart that Envoy", p.Node, p.Nack)
		case p.Connected && !n.met(p):
			behind = append(behind, p.Node)
		}
	}
	if len(behind) == 0 {
		return s.unproxied()
	}
	return blocked(Unconfirmed, "waiting: %s not acknowledged yet: %s", counted(len(behind), "proxy has", "proxies have"), names(behind))
}

// unproxied says that no proxy is connected: an acknowledgement of nobody is none, and
// whoever were let go would have nowhere to go.
func (s *situation) unproxied() *blocker {
	for _, p := range s.seen.Proxies {
		if p.Connected && p.Routes {
			return nil
		}
	}
	if len(s.state.Proxies) == 0 {
		return blocked(NoProxy, "waiting: no Envoy has connected, so nobody is let go; have one connect to rolloutd")
	}
	return blocked(NoProxy, "waiting: no Envoy is connected, so nobody is let go; see that %s can reach rolloutd", names(s.state.Proxies))
}

// absentProxy is the first known proxy that is not connected and had not acknowledged
// what is needed, and until when it is waited for.
func (s *situation) absentProxy(n need) (node string, end time.Time, absent bool) {
	for _, node := range s.state.Proxies {
		p, seen := s.proxy(node)
		if p.Connected || n.met(p) {
			continue
		}
		since := latest(s.state.Rollout.Since, s.seen.Watching)
		if seen {
			since = latest(since, p.Lost)
		}
		return node, since.Add(proxyPatience), true
	}
	return "", time.Time{}, false
}
