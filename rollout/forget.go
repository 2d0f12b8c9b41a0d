package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// Forget is an operator's word that a proxy is gone: nobody waits for it any more. One
// that is connected is not gone. Should it come back, it is a new one.
type Forget struct {
	Service discovery.Service
	Node    string
}

func (c Forget) service() discovery.Service { return c.Service }

func (c Forget) apply(_ Policy, s State, seen Seen, now time.Time) (State, Answer, error) {
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
