package rollout

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
