package rollout

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/units"
)

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// commands is all that a story can make happen.
func (s *teller) commands() map[string]func(rest string) {
	return map[string]func(string){
		"world":   s.begin,
		"run":     s.pass,
		"promote": func(rest string) { s.command(s.promotion(rest)) },
		"plan":    s.plan,
		"pause":   func(string) { s.command(Pause{Service: "chat"}) },
		"resume":  func(string) { s.command(Resume{Service: "chat"}) },
		"abort":   func(string) { s.command(Abort{Service: "chat"}) },
		"pace": func(rest string) {
			f, err := units.ParseFunnel(rest)
			if err != nil {
				s.line("refused", "%v", err)
				return
			}
			s.command(SetPace{Service: "chat", Funnel: f})
		},
		// what happens to rolloutd
		"restart": func(string) { s.restart() },
		"store":   func(rest string) { s.storeDown = rest == "down" },
		"retire": func(string) {
			s.remember(s.state.Retire(true))
			s.everybody(func(in *instance) { in.gone = true })
		},
		"unretire": func(string) {
			s.remember(s.state.Retire(false))
			s.everybody(func(in *instance) { in.gone = false })
		},
		// … to instances
		"kill": s.each(func(in *instance, _ string) { in.dead, in.Health = true, discovery.Critical }),
		"start": s.each(func(in *instance, _ string) {
			in.dead, in.gone, in.Health = false, false, discovery.Passing
			in.status, in.returned = drain.Status{State: drain.Serving}, 0
		}),
		"deaf":       s.each(func(in *instance, _ string) { in.deaf = true }),
		"hears":      s.each(func(in *instance, _ string) { in.deaf = false }),
		"deregister": s.each(func(in *instance, _ string) { in.gone = true }),
		"register":   s.each(func(in *instance, _ string) { in.gone = false }),
		"health":     s.each(func(in *instance, arg string) { in.Health = discovery.Health(arg) }),
		"capacity":   s.each(func(in *instance, arg string) { in.Capacity = s.number(arg) }),
		"limit":      s.each(func(in *instance, arg string) { in.status.Limit = s.number(arg) }),
		"slow":       s.each(func(in *instance, arg string) { in.status.HandshakeMS = new(s.number(arg)) }),
		"refuses":    s.each(func(in *instance, _ string) { in.full = true }),
		"takes":      s.each(func(in *instance, _ string) { in.full = false }),
		"crash":      s.each(func(in *instance, _ string) { s.crash(in) }),
		"stubborn":   s.each(func(in *instance, arg string) { in.stubborn = arg != "no" }),
		"join": func(rest string) {
			colour, n, _ := strings.Cut(rest, " ")
			s.add(discovery.Colour(colour), s.number(n)-1)
			clear(s.byColour)
		},
		"gate":     s.gate,
		"reported": func(string) { s.reported = true },
		"unclear":  func(string) { s.unclear = true },
		"furthest": func(string) {
			s.line("furthest", "%d were on their way at once, %d closes in %s", s.far, peak(s.evictions, s.policy.Funnel.Every.D()), s.policy.Funnel.Every)
		},
		"no-endpoint": s.each(func(in *instance, _ string) { in.Drain = "" }),
		"arrive": func(rest string) {
			colour, n, _ := strings.Cut(rest, " ")
			for range s.number(n) {
				s.arriveClient(discovery.Colour(colour), false)
			}
		},
		"ends":     s.each(func(in *instance, arg string) { in.status.Active -= s.number(arg) }),
		"move":     s.each(s.move),
		"recolour": s.each(func(in *instance, arg string) { in.Colour = discovery.Colour(arg) }),
		// … to discovery and the proxies
		"discovery": func(rest string) { s.fleetErr = rest },
		"suspect":   func(rest string) { s.suspect = rest },
		"guard":     func(rest string) { s.unpub = rest },
		"proxy":     s.meddle,
	}
}

// begin makes the world: "blue=3 green=3 connections=100 proxies=2", and the
// policy: "close=10 every=3s grace=0s canary=0% soak=0s return=1m".
func (s *teller) begin(rest string) {
	blue, green, connections, proxies := 3, 3, 100, 2
	policy := DefaultPolicy()
	policy.Funnel = units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}
	back, inPlace, hook := 200*time.Millisecond, 0, 0
	s.pairs(rest, map[string]any{
		"blue": &blue, "green": &green, "connections": &connections, "proxies": &proxies,
		"close": &policy.Funnel.Close, "every": &policy.Funnel.Every, "grace": &policy.Grace,
		"canary": &policy.Canary, "soak": &policy.Soak, "return": &policy.ReturnTimeout, "back": &back,
		"window": &policy.Window, "capacity": &policy.Capacity, "headroom": &policy.Headroom, "slow": &policy.Slow,
		"stagger": &policy.Stagger.Instances, "stagger-soak": &policy.Stagger.Soak, "deadline": &policy.Deadline,
		"hurry": &policy.HurryCap, "kill": &policy.KillAfter, "abort-after": &policy.AbortAfter, "in-place": &inPlace, "hook": &hook,
	})
	policy.Stagger.InPlace = inPlace > 0
	if policy.HurryCap > 0 {
		policy.Pressure = Hurry
	}
	if hook > 0 {
		policy.Hook = &Hook{Command: []string{"stop"}}
	}
	s.world = newWorld(s.t, blue, green, connections, proxies)
	s.policy = policy
	s.comeBack = func() time.Duration { return back }
	s.rests = s.news
	s.out.Reset()
}

// pass lets time pass: "3s", or "until" something.
func (s *teller) pass(rest string) {
	if what, ok := strings.CutPrefix(rest, "until "); ok {
		s.until(what)
	} else {
		d, err := time.ParseDuration(rest)
		if err != nil {
			s.t.Fatal(err)
		}
		s.run(d, func() bool { return false })
	}
	s.holdings()
}

// promotion reads "green close=5 every=3s force".
func (s *teller) promotion(rest string) Promote {
	target, rest, _ := strings.Cut(rest, " ")
	rest, force := strings.CutSuffix(rest, "force")
	o := Overrides{Close: new(int), Every: new(units.Duration), Grace: new(units.Duration), Canary: new(units.Share), Soak: new(units.Duration)}
	given := s.pairs(rest, map[string]any{"close": o.Close, "every": o.Every, "grace": o.Grace, "canary": o.Canary, "soak": o.Soak})
	keep(&o.Close, given["close"])
	keep(&o.Every, given["every"])
	keep(&o.Grace, given["grace"])
	keep(&o.Canary, given["canary"])
	keep(&o.Soak, given["soak"])
	return Promote{Service: "chat", Target: discovery.Colour(target), Overrides: o, Force: force}
}

func keep[T any](p **T, given bool) {
	if !given {
		*p = nil
	}
}

func (s *teller) plan(rest string) {
	p := s.promotion(rest)
	plan, err := MakePlan(s.state, s.seen(), p.Target, p.Overrides.Over(s.policy), s.now)
	if err != nil {
		s.refuse(err)
		return
	}
	room := "not declared"
	if plan.Room != nil {
		room = fmt.Sprint(*plan.Room)
	}
	s.line("plan", "%s to %s: %d connections in %s, about %s, %.3g per second at most, room %s",
		plan.From, plan.To, plan.Connections, counted(plan.Steps, "step", "steps"), plan.Takes, plan.PeakPerSecond, room)
	for _, x := range plan.Notes {
		s.line("note", "%s", x)
	}
	for _, x := range plan.Problems {
		s.line("problem", "%s", x)
	}
}

func (s *teller) command(c Command) {
	next, answer, err := c.apply(s.policy, s.state, s.seen(), s.now)
	switch {
	case err != nil:
		s.refuse(err)
	case s.storeDown:
		s.refuse(RefuseUnstored("chat", Unstored(syscall.ENOSPC)))
	default:
		s.remember(next)
		s.line("answer", "%s", answer.Text)
		s.history()
	}
}

func (s *teller) refuse(err error) {
	s.line("refused", "%v (%s)", err, err.(*Refusal).Code)
}

// each does something to every instance that the first word names.
func (s *teller) each(do func(in *instance, arg string)) func(string) {
	return func(rest string) {
		name, arg, _ := strings.Cut(rest, " ")
		hit := false
		for _, key := range sortedKeys(s.instances) {
			if in := s.instances[key]; string(key) == name || string(in.Colour) == name {
				do(in, arg)
				hit = true
			}
		}
		if !hit {
			s.t.Fatalf("no instance is called %s", name)
		}
		clear(s.byColour)
	}
}

func (s *teller) everybody(do func(*instance)) {
	for _, in := range s.instances {
		do(in)
	}
}

// move starts the instance anew at another address while the former process
// still runs, and still holds what it held.
func (s *teller) move(in *instance, addr string) {
	next := *in
	s.split(in)
	next.Addr = netip.MustParseAddrPort(addr)
	next.Drain = "http://" + addr
	s.anew(&next)
}

// split keeps the former process under the key that the state gives it.
func (s *teller) split(in *instance) {
	key := former(Member{Identity: Identity{ID: in.ID, Colour: in.Colour, Addr: in.Addr}})
	delete(s.instances, in.ID)
	in.ID, in.gone = key, true
	s.instances[key] = in
}

func (s *teller) anew(in *instance) {
	in.sight, in.nextAsk, in.inFlight = Sighting{}, s.now, false
	in.status = drain.Status{State: drain.Serving}
	s.instances[in.ID] = in
}

// meddle is what happens to a proxy: "edge-2 gone", "edge-2 back", "edge-1
// refuses TEXT", "edge-1 takes".
func (s *teller) meddle(rest string) {
	node, rest, _ := strings.Cut(rest, " ")
	what, text, _ := strings.Cut(rest, " ")
	p := s.proxies[node]
	if p == nil {
		p = &proxy{delay: 10 * time.Millisecond}
		s.proxies[node] = p
	}
	switch what {
	case "gone":
		p.connected, p.lost, p.told = false, s.now, ""
	case "back":
		p.connected, p.told = true, ""
	case "slow":
		s.pairs("delay="+text, map[string]any{"delay": &p.delay})
		p.told = ""
	case "refuses":
		p.nack, p.told = text, ""
	case "takes":
		p.nack, p.told = "", ""
	default:
		s.t.Fatalf("a proxy cannot %q", what)
	}
}

func (s *teller) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// pairs reads "name=value …" into what values points to and returns which were
// there.
func (s *teller) pairs(text string, values map[string]any) map[string]bool {
	given := map[string]bool{}
	for pair := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(pair, "=")
		var err error
		switch into := values[name].(type) {
		case *int:
			*into, err = strconv.Atoi(value)
		case *time.Duration:
			*into, err = time.ParseDuration(value)
		case interface{ UnmarshalText([]byte) error }:
			err = into.UnmarshalText([]byte(value))
		default:
			s.t.Fatalf("%q is not understood", pair)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		given[name] = true
	}
	return given
}

// gate adds a gate, or changes what it answers: "errors open", "errors closed
// TEXT", "errors unanswered TEXT".
func (s *teller) gate(rest string) {
	name, rest, _ := strings.Cut(rest, " ")
	how, text, _ := strings.Cut(rest, " ")
	if s.gates[name] == nil {
		s.policy.Gates = append(s.policy.Gates, Gate{Name: name, Command: []string{"ask"}})
	}
	s.gates[name] = &Reading{Open: how == "open", Unanswered: how == "unanswered", Text: text}
}
