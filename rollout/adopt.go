package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// NewUnsettled is the state of a service of which nothing is stored: which colour is
// live has to be read from the instances and the proxies before anything of it is
// published. live is the one that a service has which was never seen before.
func NewUnsettled(service discovery.Service, live discovery.Colour) State {
	s := NewState(service, live)
	s.Unsettled = true
	return s
}

// prove makes the colour live that the evidence proves. Until then nothing of the
// service is published: proxies keep what they have.
func prove(t *turn) Reason {
	live := t.state.Live
	e := gather(t.situation)
	v := e.judge(live, t.seen.Watching, t.now)
	switch {
	case v.live == "" && t.now.Before(latest(t.seen.Watching.Add(instancePatience), v.until)):
		return t.wait(blockedUntil(v.until, Unsettled, "waiting: no state is stored of %s, so its live colour is being read from its instances and proxies: %s yet; proxies keep what they have", t.state.Service, v.why))
	case v.live == "":
		return t.wait(blocked(Unsettled, "waiting: no state is stored of %s, and its live colour is not proven: %s; proxies keep what they have, new ones answer 503; look which colour serves, then rolloutctl adopt it", t.state.Service, v.why))
	case v.usual && e.epoch == 0:
		s := t.write()
		s.Live, s.Unsettled = v.live, false
	default:
		takeOver(t, v.live, e.next(), "no state was stored: "+v.why)
	}
	t.wake = t.now
	return reason(IsSteady, "all new connections go to %s", v.live)
}

// takeOver makes live the live colour in an epoch, which is above every one that is
// remembered, and writes it into the history: from that the instances are told to serve.
func takeOver(t *turn, live discovery.Colour, epoch uint64, event string) {
	s := t.write()
	s.Live, s.Unsettled, s.Epoch = live, false, epoch
	s.History = append(slices.Clip(s.History), Record{
		ID: fmt.Sprintf("%s-%d", s.Service, s.Epoch), From: live.Other(), To: live, Outcome: Adopted,
		Started: t.now, Ended: t.now, Returned: new(uint64), NeverBack: new(uint64), Events: []Event{{At: t.now, Text: event}},
	})
}

// Adopt says which colour is live where nothing is stored and the evidence does not
// prove it.
type Adopt struct {
	Service discovery.Service
	Live    discovery.Colour
}

func (c Adopt) service() discovery.Service { return c.Service }

func (c Adopt) apply(_ Policy, s State, seen Seen, now time.Time) (State, Answer, error) {
	if c.Live != discovery.Blue && c.Live != discovery.Green {
		return s, Answer{}, refuse(BadRequest, "%s: %q is no colour; use blue or green", s.Service, c.Live)
	}
	switch {
	case s.Unsettled:
	case s.Rollout == nil && s.Live == c.Live:
		return s, Answer{Text: fmt.Sprintf("%s: %s is live already, nothing to do", s.Service, c.Live)}, nil
	default:
		return s, Answer{}, refuse(Settled, "%s: the stored state says that %s is live, so there is nothing to adopt; to move to %s, promote it", s.Service, s.Live, c.Live)
	}
	t := newTurn(s, seen, now)
	absorb(t)
	takeOver(t, c.Live, gather(t.situation).next(), "no state was stored: an operator says that "+string(c.Live)+" is live")
	return t.state, Answer{Text: fmt.Sprintf("%s: %s is live; all new connections go to it", s.Service, c.Live)}, nil
}

// refuseUnsettled is the refusal of what needs to know the live colour; nil when it is known.
func refuseUnsettled(s State, seen Seen, now time.Time) *Refusal {
	if !s.Unsettled {
		return nil
	}
	if unread := newSituation(s, seen, now).unread(); unread != nil {
		return refuse(NotReady, "%s; mend that first", unread.Text)
	}
	return refuse(NotSettled, "%s: no state is stored of it and its live colour is not proven yet; rolloutctl status says why, and rolloutctl adopt COLOUR says which it is", s.Service)
}
