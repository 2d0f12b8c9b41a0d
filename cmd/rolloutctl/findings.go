package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// judgement is what one finding says. What is unknown is no yes.
type judgement string

const (
	fine    judgement = "ok"
	noted   judgement = "note"
	unknown judgement = "unknown"
	wrong   judgement = "WRONG"
)

// finding is what check says of one thing, in one sentence.
type finding struct {
	Verdict judgement `json:"verdict"`
	About   string    `json:"about"`
	Text    string    `json:"text"`
}

// bearable is a difference of clocks that nobody reads a rollout wrongly by.
const bearable = 2 * time.Second

// clocks compares rolloutd's, read between before and after, with this machine's.
func clocks(server, before, after time.Time) finding {
	switch {
	case before.Sub(server) > bearable:
		return finding{noted, "clocks", fmt.Sprintf("rolloutd's is %s behind this machine's; the times that it says are its own", short(before.Sub(server)))}
	case server.Sub(after) > bearable:
		return finding{noted, "clocks", fmt.Sprintf("rolloutd's is %s ahead of this machine's; the times that it says are its own", short(server.Sub(after)))}
	}
	return finding{fine, "clocks", "rolloutd's and this machine's agree"}
}

// envoys judges what routes: each has to be there, by itself, as it is told, and
// has to report what it holds.
func envoys(all []api.Proxy) []finding {
	var found []finding
	healthy := map[string]int{} // by version
	routing := 0
	for _, p := range all {
		if p.Foreign {
			continue
		}
		var bad []finding
		say := func(v judgement, format string, args ...any) {
			bad = append(bad, finding{v, "Envoy " + p.Node, fmt.Sprintf(format, args...)})
		}
		if !p.Connected {
			say(wrong, "it is lost and would be waited for; start it, or say that it is gone: rolloutctl proxies forget %s", p.Node)
			found = append(found, bad...)
			continue
		}
		routing++
		if len(p.Twins) > 0 {
			say(wrong, "it shares its node id with %s; give each Envoy its own (bootstrap --node)", strings.Join(p.Twins, ", "))
		}
		if p.Contested {
			say(unknown, "two connections speak for it; within 10 s it is known whether they are two Envoys")
		}
		for _, n := range p.Nacks {
			say(wrong, "it refused %s: %s", strings.TrimSpace(n.Type+" "+strings.Join(n.Names, ", ")), n.Message)
		}
		for _, w := range p.Withheld {
			say(wrong, "it is not sent %s: %s", w.Ref, w.Why)
		}
		switch r := p.Reports; {
		case r.Silent:
			say(wrong, "its reports of what it holds came and no longer come; look at its log, and at the way from it to xds.listen")
		case r.Loads == nil && r.Counters == nil:
			say(unknown, "it has not reported what it holds; if it never does, its bootstrap is not ours: rolloutctl bootstrap --node %s", p.Node)
		case r.Counters == nil:
			say(unknown, "it has not sent its counters; if it never does, make its bootstrap anew: rolloutctl bootstrap --node %s", p.Node)
		case r.Partial:
			say(wrong, "it sends no server.parent_connections; make its bootstrap anew, or let its stats_matcher include server.")
		case r.Refused > 0:
			say(noted, "%d of its reports were not believed, the newest: %s", r.Refused, r.Trouble)
		}
		found = append(found, bad...)
		if len(bad) == 0 {
			healthy[p.UserAgent]++
		}
	}
	for _, version := range slices.Sorted(maps.Keys(healthy)) {
		found = append(found, finding{fine, "Envoys", fmt.Sprintf("%d of %s: connected, told, and reporting", healthy[version], orUnnamed(version))})
	}
	if routing == 0 {
		found = append(found, finding{wrong, "Envoys", "none is connected; rolloutctl bootstrap --node NAME prints what one needs"})
	}
	return found
}

func orUnnamed(version string) string {
	if version == "" {
		return "a version that they do not say"
	}
	return version
}

// service judges what discovery says of it and what its instances answer.
func service(s api.Status) []finding {
	var found []finding
	say := func(v judgement, what, format string, args ...any) {
		found = append(found, finding{v, ofService(s.Service, what), fmt.Sprintf(format, args...)})
	}
	for _, trouble := range []string{s.Discovery.Error, s.Discovery.Suspect} {
		if trouble != "" {
			say(wrong, "discovery", "%s", trouble)
		}
	}
	if s.Discovery.Error == "" && s.Discovery.Suspect == "" {
		var sides []string
		for _, col := range s.Colours {
			sides = append(sides, fmt.Sprintf("%s %d of %d healthy", col.Colour, col.Healthy, col.Instances))
		}
		say(fine, "discovery", "%s", strings.Join(sides, ", "))
	}
	for _, l := range s.LeftOut {
		say(wrong, "instance "+string(l.ID), "it is left out: %s", l.Reason)
	}
	for _, n := range s.Notes {
		say(noted, "instance "+string(n.ID), "%s", n.Text)
	}
	told, bare := 0, 0
	for _, i := range s.Instances {
		what := "instance " + string(i.ID)
		switch {
		case i.Departed || i.CountedWith != "":
		case i.Drain == "":
			bare++
		case i.Error != "":
			say(wrong, what, "its drain endpoint %s: %s", i.Drain, i.Error)
		case i.Heard == nil:
			say(unknown, what, "its drain endpoint %s has not answered yet", i.Drain)
		default:
			told++
		}
		if d := i.Differs; d != nil {
			say(wrong, what, "it says that it holds %d, the proxies report %d", d.Said, d.Reported)
		}
	}
	if told > 0 {
		say(fine, "drain endpoints", "%d answer, and take rolloutd's token", told)
	}
	if bare > 0 {
		end := "you end them"
		if s.Policy.Hook != nil {
			end = "the hook ends them"
		}
		say(noted, "drain endpoints", "%s none: the proxies count what they hold, and %s", have(bare), end)
	}
	switch {
	case s.Rollout != nil:
		say(noted, "now", "rollout %s is under way: %s", s.Rollout.ID, s.Reason.Text)
	case s.Live == "" || s.Reason.Waiting():
		say(wrong, "now", "%s", s.Reason.Text)
	}
	return found
}

func have(n int) string {
	if n == 1 {
		return "1 instance has"
	}
	return fmt.Sprintf("%d instances have", n)
}

// planned judges what the next promotion would meet. What service has said already
// is not said twice.
func planned(s api.Status, p rollout.Plan) []finding {
	var found []finding
	say := func(v judgement, what, format string, args ...any) {
		found = append(found, finding{v, ofService(p.Service, what), fmt.Sprintf(format, args...)})
	}
	for _, g := range p.Gates {
		verdict := fine
		switch {
		case g.Unanswered:
			verdict = unknown
		case !g.Open:
			verdict = noted
		}
		say(verdict, "gate", "%s", strings.TrimPrefix(g.Text, "gate "))
	}
	if p.Room == nil {
		say(noted, "capacity", "how much %s has room for is not known; declare the capacity of its instances, or set it in the policy", p.To)
	} else {
		say(fine, "capacity", "%s has room for %d, and %s holds %d", p.To, *p.Room, p.From, p.Connections)
	}
	for _, n := range p.Notes {
		if !strings.HasPrefix(n, "gate ") {
			say(noted, "plan", "%s", n)
		}
	}
	for _, problem := range p.Problems {
		if slices.ContainsFunc(s.Instances, func(i api.Instance) bool { return i.Error != "" && strings.Contains(problem, i.Error) }) ||
			problem == s.Discovery.Error || problem == s.Discovery.Suspect {
			continue
		}
		say(wrong, "plan", "%s", problem)
	}
	if len(p.Problems) == 0 {
		say(fine, "plan", "promoting %s moves %d connections in about %s, at most %.1f a second", p.To, p.Connections, p.Takes, p.PeakPerSecond)
	}
	return found
}

// skew says which rolloutd answers, and whether it is of this rolloutctl's release.
func skew(server string) finding {
	if server == version {
		return finding{fine, "rolloutd", "it answers; version " + server}
	}
	return finding{noted, "rolloutd", fmt.Sprintf("it is version %s and rolloutctl is %s; use both of one release", server, version)}
}
