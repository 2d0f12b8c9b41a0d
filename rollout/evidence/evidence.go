// Package evidence judges which colour of a service is live when nothing is stored of it, by
// what instances remember that they were told and by what proxies hold.
package evidence

import (
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
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

// Instance is one that the service has. Endpoint: it can be asked what it was told.
type Instance struct {
	ID       discovery.InstanceID
	Endpoint bool
}

// Evidence is what speaks for either colour when no state was stored: the instances'
// memory of what they were told, and what proxies hold.
type Evidence struct {
	said map[discovery.Colour]voice
	// speaker is an instance that stands for what its colour says.
	speaker map[discovery.Colour]discovery.InstanceID
	// held is how many connections the proxies report; counted: every one of them does.
	held    map[discovery.Colour]int
	counted bool
	// keeper is a proxy that holds something of the service from before; empty: there
	// is none.
	keeper string
	// Epoch is the newest that an instance which answered remembers.
	Epoch uint64
	// unheard: others may remember a newer one.
	unheard bool
}

// unheardEpochs is how many epochs those that did not answer may be ahead.
const unheardEpochs = 1000

// Next is an epoch above every one that is remembered.
func (e Evidence) Next() uint64 {
	if e.unheard {
		return e.Epoch + unheardEpochs
	}
	return e.Epoch + 1
}

// KnownEpoch is the highest epoch that an instance is believed to have been ordered in when
// the state knows of none so high. One who says more fences only himself.
const KnownEpoch = 1_000_000_000

// Gather collects the evidence about a service of which no state was stored. Of each
// colour it has the instances.
func Gather(of map[discovery.Colour][]Instance, seen observed.Seen, now time.Time) Evidence {
	e := Evidence{
		said: map[discovery.Colour]voice{}, speaker: map[discovery.Colour]discovery.InstanceID{},
		held: map[discovery.Colour]int{}, counted: true,
	}
	for _, c := range discovery.Colours {
		e.said[c], e.speaker[c] = listen(of[c], seen, now)
		w, ok := seen.Witnesses[c]
		e.held[c] = w.Active
		e.counted = e.counted && ok && len(w.Missing) == 0
		for _, in := range of[c] {
			sight := seen.Instances[in.ID]
			if said := sight.Status.Epoch; sight.Err == "" && said <= KnownEpoch {
				e.Epoch = max(e.Epoch, said)
			}
			e.unheard = e.unheard || in.Endpoint && sight.At.IsZero()
		}
	}
	for _, p := range seen.Proxies {
		if p.Keeps && e.keeper == "" {
			e.keeper = p.Node
		}
	}
	return e
}

// listen is what the instances say, and one that says it. Those that are
// stopping by themselves say nothing.
func listen(of []Instance, seen observed.Seen, now time.Time) (voice, discovery.InstanceID) {
	first := map[voice]discovery.InstanceID{}
	say := func(v voice, key discovery.InstanceID) {
		if _, ok := first[v]; !ok {
			first[v] = key
		}
	}
	for _, in := range of {
		sight := seen.Instances[in.ID]
		switch told := sight.Status.Rollout != "" && sight.Status.Epoch > 0; {
		case !in.Endpoint:
			say(mute, in.ID)
		case sight.Refused && now.Sub(sight.FailingSince) >= observed.Patience:
			say(gone, in.ID)
		case sight.At.IsZero():
			say(silent, in.ID)
		case sight.Status.State == contract.Serving && told:
			say(serves, in.ID)
		case sight.Status.State == contract.Serving:
			say(quiet, in.ID)
		case told:
			say(drains, in.ID)
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
		if !ok || v == silent && heard && now.Sub(seen.Watching) >= hearsay {
			continue
		}
		return v, key
	}
	return none, ""
}

// Verdict is what the evidence proves about which colour is live.
type Verdict struct {
	// Live is the colour; empty while it is not known.
	Live discovery.Colour
	// Why says what proves it, or what is waited for. Usual: there is nothing to prove,
	// so it is the configured one.
	Why   string
	Usual bool
	// Until is when more will be known; zero when nobody knows.
	Until time.Time
}

// Judge weighs the evidence. configured is the live colour of a service that was never
// seen before. What contradicts, or is not complete, proves nothing.
func (e Evidence) Judge(configured discovery.Colour, watching, now time.Time) Verdict {
	for _, c := range discovery.Colours {
		o := c.Other()
		switch v, w := e.said[c], e.said[o]; {
		case v == silent:
			return Verdict{Why: fmt.Sprintf("%s instance %s has not answered", c, e.speaker[c])}
		case v == torn:
			return Verdict{Why: fmt.Sprintf("%s instance %s drains by an order and others of %s take connections", c, e.speaker[c], c)}
		case v == drains && w == drains:
			return Verdict{Why: fmt.Sprintf("%s instance %s and %s instance %s both drain by an order", c, e.speaker[c], o, e.speaker[o])}
		case v == serves && w == serves:
			return Verdict{Why: fmt.Sprintf("%s instance %s and %s instance %s both serve by an order", c, e.speaker[c], o, e.speaker[o])}
		}
	}
	for _, c := range discovery.Colours {
		o := c.Other()
		switch v, w := e.said[c], e.said[o]; {
		case w == drains:
			return Verdict{Live: c, Why: fmt.Sprintf("%s instance %s drains by an order", o, e.speaker[o])}
		case v == serves && (w == none || w == gone):
			return Verdict{Live: c, Why: fmt.Sprintf("%s instance %s serves by an order, and no %s instance does", c, e.speaker[c], o)}
		}
	}
	return e.judgeProxies(configured, watching, now)
}

// judgeProxies goes on where no instance says that it drains: both colours may take
// connections, so what the proxies hold decides.
func (e Evidence) judgeProxies(configured discovery.Colour, watching, now time.Time) Verdict {
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
			return Verdict{Why: fmt.Sprintf("%s instance %s serves by an order, and the proxies hold connections of %s only", told, e.speaker[told], c)}
		}
		return Verdict{Live: c, Why: fmt.Sprintf("the proxies hold connections of %s only", c)}
	}
	other := configured.Other()
	soon, counted := watching.Add(newcomers), watching.Add(counting)
	switch {
	case e.keeper != "" && !e.counted:
		return Verdict{Why: fmt.Sprintf("proxy %s holds the service from before and has not said how many connections of each colour", e.keeper), Until: counted}
	case e.said[other] == none && told == "" && (e.keeper == "" || e.said[configured] != none):
		return Verdict{Live: configured, Usual: true}
	case e.keeper != "":
		return Verdict{Why: fmt.Sprintf("proxy %s holds the service from before, and nothing says which colour it sends to", e.keeper)}
	case e.held[configured]+e.held[other] > 0:
		return Verdict{Why: "the proxies hold connections of both colours"}
	case now.Before(soon):
		return Verdict{Why: "a proxy that holds the service from before may still connect", Until: soon}
	case told != "":
		return Verdict{Live: told, Why: fmt.Sprintf("%s instance %s serves by an order, and no proxy holds the service", told, e.speaker[told])}
	}
	return Verdict{Live: configured, Usual: true}
}
