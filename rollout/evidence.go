package rollout

import (
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

const (
	// newcomers is how long proxies that hold something of a service are given to
	// connect again before nobody holds anything.
	newcomers = time.Second
	// counting is how long those that do are given to say what they hold.
	counting = 15 * time.Second
	// hearsay is how long each instance of a colour is waited for before those that
	// answered speak for it.
	hearsay = 30 * time.Second
)

// voice is what the instances of a colour say of it.
type voice string

const (
	// none: there is no instance; gone: no process answers where endpoints should be.
	none voice = "none"
	gone voice = "gone"
	// silent: some declare a drain endpoint and have not answered.
	silent voice = "silent"
	// mute: none declares one, so nobody can be asked.
	mute voice = "mute"
	// quiet: they take connections and no rollout has told them to.
	quiet voice = "quiet"
	// serves: they take connections as a rollout told them.
	serves voice = "serves"
	// drains: they refuse connections as a rollout told them.
	drains voice = "drains"
	// torn: some refuse as a rollout told them, and others take connections.
	torn voice = "torn"
)

// evidence is what speaks for either colour when no state was stored: the instances'
// memory of what they were told, and what proxies hold.
type evidence struct {
	said map[discovery.Colour]voice
	// speaker is an instance that stands for what its colour says.
	speaker map[discovery.Colour]discovery.InstanceID
	// held is how many connections the proxies report; counted: every one of them does.
	held    map[discovery.Colour]int
	counted bool
	// keeper is a proxy that holds something of the service from before; empty: there
	// is none.
	keeper string
	// epoch is the newest that an instance which answered remembers; unheard: others may
	// remember a newer one.
	epoch   uint64
	unheard bool
}

// unheardEpochs is how many epochs those that did not answer may be ahead.
const unheardEpochs = 1000

// next is an epoch above every one that is remembered.
func (e evidence) next() uint64 {
	if e.unheard {
		return e.epoch + unheardEpochs
	}
	return e.epoch + 1
}

// gather collects the evidence about a service of which no state was stored.
func gather(s *situation) evidence {
	e := evidence{
		said: map[discovery.Colour]voice{}, speaker: map[discovery.Colour]discovery.InstanceID{},
		held: map[discovery.Colour]int{}, counted: true,
	}
	for _, c := range discovery.Colours {
		e.said[c], e.speaker[c] = listen(s, c)
		w, ok := s.seen.Witnesses[c]
		e.held[c] = w.Active
		e.counted = e.counted && ok && len(w.Missing) == 0
		for _, f := range s.members().colour[c] {
			if said := s.seen.Instances[f.key].Status.Epoch; f.answers && said <= knownEpoch {
				e.epoch = max(e.epoch, said)
			}
			e.unheard = e.unheard || f.endpoint && f.heard.IsZero()
		}
	}
	for _, p := range s.seen.Proxies {
		if p.Keeps && e.keeper == "" {
			e.keeper = p.Node
		}
	}
	return e
}

// listen is what the instances of a colour say, and one that says it. Those that are
// stopping by themselves say nothing.
func listen(s *situation, c discovery.Colour) (voice, discovery.InstanceID) {
	first := map[voice]discovery.InstanceID{}
	say := func(v voice, key discovery.InstanceID) {
		if _, ok := first[v]; !ok {
			first[v] = key
		}
	}
	for _, f := range s.members().colour[c] {
		sight := s.seen.Instances[f.key]
		switch told := sight.Status.Rollout != "" && sight.Status.Epoch > 0; {
		case !f.endpoint:
			say(mute, f.key)
		case sight.Refused && s.now.Sub(sight.FailingSince) >= instancePatience:
			say(gone, f.key)
		case f.heard.IsZero():
			say(silent, f.key)
		case sight.Status.State == drain.Serving && told:
			say(serves, f.key)
		case sight.Status.State == drain.Serving:
			say(quiet, f.key)
		case told:
			say(drains, f.key)
		}
	}
	_, takes := first[quiet]
	_, sent := first[serves]
	_, closed := first[drains]
	if closed && (takes || sent) {
		return torn, first[drains]
	}
	heard := closed || takes || sent
	for _, v := range []voice{silent, drains, serves, mute, quiet, gone} {
		key, ok := first[v]
		if !ok || v == silent && heard && s.now.Sub(s.seen.Watching) >= hearsay {
			continue
		}
		return v, key
	}
	return none, ""
}

// verdict is what the evidence proves about which colour is live.
type verdict struct {
	// live is the colour; empty while it is not known.
	live discovery.Colour
	// why says what proves it, or what is waited for. usual: there is nothing to prove,
	// so it is the configured one.
	why   string
	usual bool
	// until is when more will be known; zero when nobody knows.
	until time.Time
}

// judge weighs the evidence. configured is the live colour of a service that was never
// seen before. What contradicts, or is not complete, proves nothing.
func (e evidence) judge(configured discovery.Colour, watching, now time.Time) verdict {
	for _, c := range discovery.Colours {
		o := c.Other()
		switch v, w := e.said[c], e.said[o]; {
		case v == silent:
			return verdict{why: fmt.Sprintf("%s instance %s has not answered", c, e.speaker[c])}
		case v == torn:
			return verdict{why: fmt.Sprintf("%s instance %s drains by an order and others of %s take connections", c, e.speaker[c], c)}
		case v == drains && w == drains:
			return verdict{why: fmt.Sprintf("%s instance %s and %s instance %s both drain by an order", c, e.speaker[c], o, e.speaker[o])}
		case v == serves && w == serves:
			return verdict{why: fmt.Sprintf("%s instance %s and %s instance %s both serve by an order", c, e.speaker[c], o, e.speaker[o])}
		}
	}
	for _, c := range discovery.Colours {
		o := c.Other()
		switch v, w := e.said[c], e.said[o]; {
		case w == drains:
			return verdict{live: c, why: fmt.Sprintf("%s instance %s drains by an order", o, e.speaker[o])}
		case v == serves && (w == none || w == gone):
			return verdict{live: c, why: fmt.Sprintf("%s instance %s serves by an order, and no %s instance does", c, e.speaker[c], o)}
		}
	}
	return e.judgeProxies(configured, watching, now)
}

// judgeProxies goes on where no instance says that it drains: both colours may take
// connections, so what the proxies hold decides.
func (e evidence) judgeProxies(configured discovery.Colour, watching, now time.Time) verdict {
	told := discovery.Colour("")
	for _, c := range discovery.Colours {
		if e.said[c] == serves {
			told = c
		}
	}
	for _, c := range discovery.Colours {
		if !e.counted || e.held[c] == 0 || e.held[c.Other()] > 0 {
			continue
		}
		if told != "" && told != c {
			return verdict{why: fmt.Sprintf("%s instance %s serves by an order, and the proxies hold connections of %s only", told, e.speaker[told], c)}
		}
		return verdict{live: c, why: fmt.Sprintf("the proxies hold connections of %s only", c)}
	}
	other := configured.Other()
	soon, counted := watching.Add(newcomers), watching.Add(counting)
	switch {
	case e.keeper != "" && !e.counted:
		return verdict{why: fmt.Sprintf("proxy %s holds the service from before and has not said how many connections of each colour", e.keeper), until: counted}
	case e.said[other] == none && told == "" && (e.keeper == "" || e.said[configured] != none):
		return verdict{live: configured, usual: true}
	case e.keeper != "":
		return verdict{why: fmt.Sprintf("proxy %s holds the service from before, and nothing says which colour it sends to", e.keeper)}
	case e.held[configured]+e.held[other] > 0:
		return verdict{why: "the proxies hold connections of both colours"}
	case now.Before(soon):
		return verdict{why: "a proxy that holds the service from before may still connect", until: soon}
	case told != "":
		return verdict{live: told, why: fmt.Sprintf("%s instance %s serves by an order, and no proxy holds the service", told, e.speaker[told])}
	}
	return verdict{live: configured, usual: true}
}
