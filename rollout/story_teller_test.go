package rollout

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// teller tells what happens in a simulated world, as far as it is news.
type teller struct {
	*world
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
	if !ok || s.world == nil && verb != "world" {
		s.t.Fatalf("%q is no command that can come here", line)
	}
	do(strings.TrimSpace(rest))
	if s.world != nil {
		s.dirty = true
	}
	return slices.Clone(s.out.Bytes())
}

func (s *teller) line(kind, format string, args ...any) {
	fmt.Fprintf(&s.out, "%s  %-10s  %s\n", s.now.UTC().Format("15:04:05.0"), kind, fmt.Sprintf(format, args...))
}

// news is called whenever a look comes to rest.
func (s *teller) news() {
	s.history()
	phase := string(s.state.Phase())
	if r := s.state.Rollout; r != nil && r.Aborting {
		phase += "*"
	}
	if said := phase + s.reason.Text; said != s.said {
		s.said = said
		s.line(phase, "%s (%s)", s.reason.Text, s.reason.Code)
	}
	wish := Wished(s.state, s.half())
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
	id, events := "", []Event(nil)
	if r := s.state.Rollout; r != nil {
		id, events = r.ID, r.Events
	}
	if id != s.rollout || len(s.state.History) > s.ended {
		if len(s.state.History) > s.ended {
			rec := s.state.History[len(s.state.History)-1]
			for _, e := range rec.Events[min(s.events, len(rec.Events)):] {
				s.line("", "- %s", e.Text)
			}
			lost := ""
			if rec.Lost > 0 {
				lost = fmt.Sprintf(" %d lost,", rec.Lost)
			}
			s.line("", "- rollout %s is %s: %d evicted,%s %s returned, %s never back",
				rec.ID, rec.Outcome, rec.Evicted, lost, maybe(rec, rec.Returned), maybe(rec, rec.NeverBack))
			if len(rec.LeftBehind) > 0 {
				s.line("", "- left behind: %s", names(rec.LeftBehind))
			}
		}
		s.rollout, s.events, s.ended = id, 0, len(s.state.History)
	}
	for _, e := range events[s.events:] {
		s.line("", "- %s", e.Text)
	}
	s.events = len(events)
}

func maybe(rec Record, n *uint64) string {
	switch {
	case n == nil:
		return "unknown"
	case rec.Estimated:
		return fmt.Sprint("about ", *n)
	}
	return fmt.Sprint(*n)
}

// ordered says what the instances are told: those with the same words together.
func ordered(orders map[discovery.InstanceID]Instruction) []string {
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
		for _, key := range sortedKeys(s.instances) {
			in := s.instances[key]
			if in.Colour != c {
				continue
			}
			part := fmt.Sprintf("%s %d", key, in.status.Active)
			switch {
			case in.dead:
				part = string(key) + " dead"
			case in.status.State != drain.Serving:
				part += " refusing"
			}
			if in.gone {
				part += " gone"
			}
			parts = append(parts, part)
		}
		s.line("held", "%s %d: %s", c, s.held(c), strings.Join(parts, ", "))
	}
}

func (s *teller) until(what string) {
	began := s.now
	met := map[string]func() bool{
		"waiting": func() bool { return s.reason.Waiting() && s.reason.Code != Settling && s.reason.Code != FreshCounts },
		"done":    s.steady,
	}[what]
	if met == nil {
		met = func() bool { return string(s.state.Phase()) == what || string(s.reason.Code) == what }
	}
	if !s.run(20*time.Minute, func() bool { return s.now.After(began) && met() }) {
		s.t.Fatalf("not %s after 20 minutes: %s", what, s.reason.Text)
	}
}
