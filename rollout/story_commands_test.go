package rollout_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/sim"
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
		"pause":   func(string) { s.command(rollout.Pause{Service: "chat"}) },
		"resume":  func(string) { s.command(rollout.Resume{Service: "chat"}) },
		"abort":   func(string) { s.command(rollout.Abort{Service: "chat"}) },
		"forget":  func(rest string) { s.command(rollout.Forget{Service: "chat", Node: rest}) },
		"pace": func(rest string) {
			f, err := units.ParseFunnel(rest)
			if err != nil {
				s.line("refused", "%v", err)
				return
			}
			s.command(rollout.SetPace{Service: "chat", Funnel: f})
		},
		// what happens to rolloutd
		"restart": func(string) { s.Restart() },
		"lose":    func(string) { s.Lose() },
		"adopt": func(rest string) {
			s.command(rollout.Adopt{Service: "chat", Live: discovery.Colour(rest)})
		},
		"store": func(rest string) { s.Outside.Store(rest != "down") },
		"retire": func(string) {
			s.Outside.Retire(true)
			s.everybody((*sim.Instance).Deregister)
		},
		"unretire": func(string) {
			s.Outside.Retire(false)
			s.everybody((*sim.Instance).Register)
		},
		// … to instances
		"kill":       s.each(func(in *sim.Instance, _ string) { in.Vanish() }),
		"start":      s.each(func(in *sim.Instance, _ string) { in.Start() }),
		"deaf":       s.each(func(in *sim.Instance, _ string) { in.Deaf = true }),
		"hears":      s.each(func(in *sim.Instance, _ string) { in.Deaf = false }),
		"deregister": s.each(func(in *sim.Instance, _ string) { in.Deregister() }),
		"register":   s.each(func(in *sim.Instance, _ string) { in.Register() }),
		"health":     s.each(func(in *sim.Instance, arg string) { in.SetHealth(discovery.Health(arg)) }),
		"capacity":   s.each(func(in *sim.Instance, arg string) { in.SetCapacity(s.number(arg)) }),
		"limit":      s.each(func(in *sim.Instance, arg string) { in.Limit = s.number(arg) }),
		"slow":       s.each(func(in *sim.Instance, arg string) { in.Handshake = new(s.number(arg)) }),
		"stranger":   s.each(func(in *sim.Instance, arg string) { in.Stranger = uint64(s.number(arg)) }),
		"lingers":    s.each(func(in *sim.Instance, arg string) { in.Lingers = s.number(arg) }),
		"claims": s.each(func(in *sim.Instance, arg string) {
			if in.Claims = nil; arg != "truth" {
				in.Claims = new(s.number(arg))
			}
		}),
		"errors":   s.each(func(in *sim.Instance, arg string) { in.Errors = uint64(s.number(arg)) }),
		"refuses":  s.each(func(in *sim.Instance, _ string) { in.Full = true }),
		"takes":    s.each(func(in *sim.Instance, _ string) { in.Full = false }),
		"crash":    s.each(func(in *sim.Instance, _ string) { in.Crash() }),
		"stubborn": s.each(func(in *sim.Instance, arg string) { in.Stubborn = arg != "no" }),
		"mute":     s.each(func(in *sim.Instance, _ string) { in.Mute = true }),
		"join": func(rest string) {
			colour, n, _ := strings.Cut(rest, " ")
			s.Fleet.Join(discovery.Colour(colour), s.number(n))
		},
		"join-deaf": func(rest string) {
			colour, n, _ := strings.Cut(rest, " ")
			s.Fleet.Join(discovery.Colour(colour), s.number(n)).Deaf = true
		},
		"back": func(rest string) {
			d, err := time.ParseDuration(rest)
			if err != nil {
				s.t.Fatal(err)
			}
			s.Crowd.Back(back(d))
		},
		"gate":     s.gate,
		"reported": func(string) { s.Edge.ReportLoads() },
		"lying":    func(string) { s.Edge.Lie() },
		"omitting": func(rest string) { s.Edge.Omit(rest != "no") },
		"modest":   s.each(func(in *sim.Instance, arg string) { in.Modest = arg != "no" }),
		"forges":   s.each(func(in *sim.Instance, arg string) { in.Forges = arg != "no" }),
		"boasts":   s.each(func(in *sim.Instance, arg string) { in.Boasts += uint64(s.number(arg)) }),
		"tells": func(rest string) {
			s.Fleet.Tell(map[string]sim.Tells{"tickets": sim.Tickets, "returns": sim.Returns, "nothing": sim.Nothing, "nobody": sim.Nobody}[rest])
		},
		"flap": func(rest string) { s.Crowd.Flap(s.number(rest)) },
		"furthest": func(string) {
			every := s.Policy.Funnel.Every
			s.line("furthest", "%d were on their way at once, %d closes in %s", s.Furthest(), s.Peak(every.D()), every)
		},
		"no-endpoint": s.each(func(in *sim.Instance, _ string) { in.DropEndpoint() }),
		"arrive": func(rest string) {
			colour, n, _ := strings.Cut(rest, " ")
			s.Crowd.Arrive(discovery.Colour(colour), s.number(n))
		},
		"visit":    func(rest string) { s.Crowd.Visit(s.number(rest)) },
		"ends":     s.each(func(in *sim.Instance, arg string) { in.End(s.number(arg)) }),
		"version":  s.each((*sim.Instance).SetVersion),
		"update":   s.each((*sim.Instance).Update),
		"move":     s.each(func(in *sim.Instance, arg string) { in.Move(netip.MustParseAddrPort(arg)) }),
		"recolour": s.each(func(in *sim.Instance, arg string) { in.Recolour(discovery.Colour(arg)) }),
		"twin": func(rest string) { // of, id, colour
			names := strings.Fields(rest)
			s.Fleet.Twin(s.Fleet.Instance(names[0]), discovery.InstanceID(names[1]), discovery.Colour(names[2]))
		},
		"untwin": func(rest string) { s.Fleet.Untwin(discovery.InstanceID(rest)) },
		// … to discovery and the proxies
		"discovery": func(rest string) { s.Fleet.Discover(rest, "") },
		"suspect":   func(rest string) { s.Fleet.Discover("", rest) },
		"unread":    func(rest string) { s.Fleet.Unread(rest) },
		"guard":     func(rest string) { s.Edge.Guard(rest) },
		"proxy":     s.meddle,
	}
}

// begin makes the world: "blue=3 green=3 connections=100 proxies=2", and the
// policy: "close=10 every=3s grace=0s canary=0% soak=0s return=1m".
func (s *teller) begin(rest string) {
	blue, green, connections, proxies := 3, 3, 100, 2
	terms := small(0, 0, 0, 0).Policy
	wait, inPlace, hook := 200*time.Millisecond, 0, 0
	s.pairs(rest, map[string]any{
		"blue": &blue, "green": &green, "connections": &connections, "proxies": &proxies,
		"close": &terms.Funnel.Close, "every": &terms.Funnel.Every, "grace": &terms.Grace,
		"canary": &terms.Canary, "soak": &terms.Soak, "return": &terms.ReturnTimeout, "back": &wait,
		"window": &terms.Window, "capacity": &terms.Capacity, "headroom": &terms.Headroom, "slow": &terms.Slow,
		"stagger": &terms.Stagger.Instances, "stagger-soak": &terms.Stagger.Soak, "deadline": &terms.Deadline,
		"hurry": &terms.HurryCap, "kill": &terms.KillAfter, "abort-after": &terms.AbortAfter, "in-place": &inPlace, "hook": &hook,
	})
	terms.Stagger.InPlace = inPlace > 0
	if terms.HurryCap > 0 {
		terms.Pressure = policy.Hurry
	}
	if hook > 0 {
		terms.Hook = &policy.Hook{Command: []string{"stop"}}
	}
	conf := small(blue, green, connections, proxies)
	conf.Policy, conf.Back = terms, back(wait)
	s.World = sim.New(conf)
	s.Rests = s.news
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
		s.Pass(d)
	}
	s.holdings()
}

// promotion reads "green close=5 every=3s force".
func (s *teller) promotion(rest string) rollout.Promote {
	target, rest, _ := strings.Cut(rest, " ")
	rest, force := strings.CutSuffix(rest, "force")
	o := policy.Overrides{Close: new(int), Every: new(units.Duration), Grace: new(units.Duration), Canary: new(units.Share), Soak: new(units.Duration)}
	given := s.pairs(rest, map[string]any{"close": o.Close, "every": o.Every, "grace": o.Grace, "canary": o.Canary, "soak": o.Soak})
	keep(&o.Close, given["close"])
	keep(&o.Every, given["every"])
	keep(&o.Grace, given["grace"])
	keep(&o.Canary, given["canary"])
	keep(&o.Soak, given["soak"])
	return rollout.Promote{Service: "chat", Target: discovery.Colour(target), Overrides: o, Force: force}
}

func keep[T any](p **T, given bool) {
	if !given {
		*p = nil
	}
}

func (s *teller) plan(rest string) {
	p := s.promotion(rest)
	plan, err := s.Plan(p.Target, p.Overrides)
	if err != nil {
		s.refuse(err)
		return
	}
	room := "not declared"
	if plan.Room != nil {
		room = fmt.Sprint(*plan.Room)
	}
	s.line("plan", "%s to %s: %d connections in %s, about %s, %.3g per second at most, room %s",
		plan.From, plan.To, plan.Connections, steps(plan.Steps), plan.Takes, plan.PeakPerSecond, room)
	for _, x := range plan.Notes {
		s.line("note", "%s", x)
	}
	for _, x := range plan.Problems {
		s.line("problem", "%s", x)
	}
}

func steps(n int) string {
	if n == 1 {
		return "1 step"
	}
	return fmt.Sprint(n, " steps")
}

func (s *teller) command(c rollout.Command) {
	answer, err := s.Do(c)
	if err != nil {
		s.refuse(err)
		return
	}
	s.line("answer", "%s", answer.Text)
	s.history()
}

func (s *teller) refuse(err error) {
	s.line("refused", "%v (%s)", err, err.(*rollout.Refusal).Code)
}

// each does something to every instance that the first word names.
func (s *teller) each(do func(in *sim.Instance, arg string)) func(string) {
	return func(rest string) {
		name, arg, _ := strings.Cut(rest, " ")
		hit := false
		for _, in := range s.Fleet.Instances() {
			if in.Name() == name || string(in.Colour) == name {
				do(in, arg)
				hit = true
			}
		}
		if !hit {
			s.t.Fatalf("no instance is called %s", name)
		}
	}
}

func (s *teller) everybody(do func(*sim.Instance)) {
	for _, in := range s.Fleet.Instances() {
		do(in)
	}
}

// meddle is what happens to a proxy: "edge-2 gone", "edge-2 ends", "edge-2 cut", "edge-2 back", "edge-1
// refuses TEXT", "edge-1 takes", "tool-1 alien".
func (s *teller) meddle(rest string) {
	node, rest, _ := strings.Cut(rest, " ")
	what, text, _ := strings.Cut(rest, " ")
	p := s.Edge.Proxy(node)
	switch what {
	case "gone":
		p.Leave()
	case "ends":
		p.End()
	case "cut":
		p.Cut()
	case "back":
		p.Return()
	case "slow":
		var d time.Duration
		s.pairs("delay="+text, map[string]any{"delay": &d})
		p.Delay(d)
	case "refuses":
		p.Refuse(text)
	case "takes":
		p.Take()
	case "alien":
		p.Estrange()
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
// TEXT", "errors unanswered TEXT". A new one that is called errors@start,soak is
// called errors and asked at these moments.
func (s *teller) gate(rest string) {
	name, rest, _ := strings.Cut(rest, " ")
	name, moments, _ := strings.Cut(name, "@")
	how, text, _ := strings.Cut(rest, " ")
	if !slices.ContainsFunc(s.Policy.Gates, func(g policy.Gate) bool { return g.Name == name }) {
		g := policy.Gate{Name: name, Command: []string{"ask"}}
		for _, at := range strings.FieldsFunc(moments, func(c rune) bool { return c == ',' }) {
			g.At = append(g.At, policy.Moment(at))
		}
		s.Policy.Gates = append(s.Policy.Gates, g)
	}
	s.Outside.Gate(name, observed.Reading{Open: how == "open", Unanswered: how == "unanswered", Text: text})
}
