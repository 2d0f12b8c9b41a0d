package rollout_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/sim"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// teller tells what happens in a simulated world, as far as it is news.
type teller struct {
	*sim.World
	t   *testing.T
	out bytes.Buffer

	said    string // phase and reason
	weighed string
	orders  []string
	rollout string
	events  int
	ended   int
}

func (s *teller) tell(line string) []byte {
	s.out.Reset()
	verb, rest, _ := strings.Cut(line, " ")
	do, ok := s.commands()[verb]
	if !ok || s.World == nil && verb != "world" {
		s.t.Fatalf("%q is no command that can come here", line)
	}
	do(strings.TrimSpace(rest))
	if s.World != nil {
		for _, f := range s.Faults() {
			s.t.Error(f)
		}
	}
	return slices.Clone(s.out.Bytes())
}

func (s *teller) line(kind, format string, args ...any) {
	fmt.Fprintf(&s.out, "%s  %-10s  %s\n", s.Now().Format("15:04:05.0"), kind, fmt.Sprintf(format, args...))
}

// news is called whenever a look comes to rest.
func (s *teller) news() {
	s.history()
	phase := string(s.State().Phase())
	if r := s.State().Rollout; r != nil && r.Aborting {
		phase += "*"
	}
	if said := phase + s.Reason().Text; said != s.said {
		s.said = said
		s.line(phase, "%s (%s)", s.Reason().Text, s.Reason().Code)
	}
	wish := s.Wish()
	if weighed := fmt.Sprintf("blue %s, green %s", wish.Weights[discovery.Blue], wish.Weights[discovery.Green]); weighed != s.weighed {
		s.weighed = weighed
		s.line("weights", "%s", weighed)
	}
	orders := ordered(wish.Orders)
	for _, o := range orders {
		if !slices.Contains(s.orders, o) {
			s.line("orders", "%s", o)
		}
	}
	s.orders = orders
}

// history tells the rollout's own events, and how it ended.
func (s *teller) history() {
	id, events := "", []state.Event(nil)
	if r := s.State().Rollout; r != nil {
		id, events = r.ID, r.Events
	}
	if id != s.rollout || len(s.State().History) > s.ended {
		if len(s.State().History) > s.ended {
			rec := s.State().History[len(s.State().History)-1]
			for _, e := range rec.Events[min(s.events, len(rec.Events)):] {
				s.line("", "- %s", e.Text)
			}
			lost := ""
			if rec.Lost > 0 {
				lost = fmt.Sprintf(" %d lost,", rec.Lost)
			}
			never := maybe(rec, rec.NeverBack)
			if rec.NotBack > 0 {
				never = fmt.Sprint("at least ", rec.NotBack)
			}
			s.line("", "- rollout %s is %s: %d evicted,%s %s returned, %s never back",
				rec.ID, rec.Outcome, rec.Evicted, lost, maybe(rec, rec.Returned), never)
			if len(rec.LeftBehind) > 0 {
				s.line("", "- left behind: %s", few(rec.LeftBehind))
			}
		}
		s.rollout, s.events, s.ended = id, 0, len(s.State().History)
	}
	for _, e := range events[s.events:] {
		s.line("", "- %s", e.Text)
	}
	s.events = len(events)
}

func maybe(rec state.Record, n *uint64) string {
	switch {
	case n == nil:
		return "unknown"
	case rec.Estimated:
		return fmt.Sprint("about ", *n)
	}
	return fmt.Sprint(*n)
}

// few lists the first three.
func few(all []string) string {
	if len(all) <= 3 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:3], ", "), len(all)-3)
}

// ordered says what the instances are told: those with the same words together.
func ordered(orders map[discovery.InstanceID]desired.Instruction) []string {
	groups := map[string][]string{}
	for _, key := range sortedKeys(orders) {
		word, who := "serve", string(key)
		if o := orders[key].Drain; o != nil {
			word = fmt.Sprintf("step %d: hold", o.Step)
			if o.Ceiling != nil {
				word, who = fmt.Sprintf("step %d: down to", o.Step), fmt.Sprintf("%s %d", key, *o.Ceiling)
			}
		}
		groups[word] = append(groups[word], who)
	}
	var out []string
	for _, word := range sortedKeys(groups) {
		out = append(out, word+" "+strings.Join(groups[word], ", "))
	}
	return out
}

// holdings tells who holds how much.
func (s *teller) holdings() {
	for _, c := range discovery.Colours {
		var parts []string
		for _, in := range s.Fleet.Colour(c) {
			part := fmt.Sprintf("%s %d", in.Name(), in.Holds())
			switch {
			case in.Dead():
				part = in.Name() + " dead"
			case in.Draining():
				part += " refusing"
			}
			if in.Gone() {
				part += " gone"
			}
			parts = append(parts, part)
		}
		s.line("held", "%s %d: %s", c, s.Fleet.Held(c), strings.Join(parts, ", "))
	}
}

func (s *teller) until(what string) {
	began := s.Now()
	met := map[string]func() bool{
		"waiting": func() bool {
			return s.Reason().Waiting() && s.Reason().Code != rollout.Settling && s.Reason().Code != rollout.FreshCounts
		},
		"done": s.Steady,
	}[what]
	if met == nil {
		met = func() bool { return string(s.State().Phase()) == what || string(s.Reason().Code) == what }
	}
	if !s.Run(20*time.Minute, func() bool { return s.Now().After(began) && met() }) {
		s.t.Fatalf("not %s after 20 minutes: %s", what, s.Reason().Text)
	}
}
