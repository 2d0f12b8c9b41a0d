package rollout

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Process is the process of a member that is counted, as it was when it was last
// written down: with each step, and with each look at what the target admitted. What
// came after that is known as long as rolloutd runs.
type Process struct {
	// Boot stands for the name that it says; empty where it says none.
	Boot string `json:"boot,omitempty"`
	// Heard and Accepted tell a process without a name from the one after it, which has
	// admitted fewer. Zero where it has a name.
	Heard    time.Time `json:"heard,omitzero"`
	Accepted uint64    `json:"accepted,omitempty"`
	// Held is how many connections it had; Totals are its own since it was counted.
	// Invariant: Held is not below 0.
	Held int `json:"held,omitempty"`
	Totals
}

// Life is a process that is no more, as it was last heard.
type Life struct {
	Status drain.Status
	At     time.Time
}

// formersKept is how many earlier processes of a member a sighting remembers.
const formersKept = 8

// sameProcess reports whether two answers, one after the other, are of one process.
func sameProcess(before, now drain.Status) bool {
	if before.Boot != "" || now.Boot != "" {
		return before.Boot == now.Boot
	}
	return now.Accepted >= before.Accepted && now.Evicted >= before.Evicted && now.Refused >= before.Refused
}

// token stands for a boot in the stored state, in few bytes.
func token(boot string) string {
	if boot == "" {
		return ""
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(boot))
	return strconv.FormatUint(h.Sum64(), 36)
}

// noted is the counts with the member's process as it is seen now.
func (c Counts) noted(s Sighting) Counts {
	if s.At.IsZero() {
		return c
	}
	p := Process{Boot: token(s.Status.Boot), Held: s.Status.Active}
	if p.Boot == "" {
		p.Heard, p.Accepted = s.At, s.Status.Accepted
	}
	p.Totals = c.did(s.Status)
	c.Process = p
	return c
}

// did is what the counted process did since it was counted, by its answer s. It cannot
// have closed more than it held when it was last written down, and admitted since.
func (c Counts) did(s drain.Status) Totals {
	t := totals(s).after(c.Totals)
	if p := c.Process; p != (Process{}) {
		t.Evicted = min(t.Evicted, p.Evicted+uint64(p.Held)+after(c.Admissions.Accepted, s.Accepted))
	}
	return t
}

// couldHold is the most that the counted process may have held by its answer s: what it
// did when it was last written down, and what it admitted since.
func (c Counts) couldHold(s drain.Status) int {
	return int(min(drain.MaxTotal, uint64(c.Process.Held)+after(c.Admissions.Accepted, s.Accepted)))
}

// after is how far a total rose; one that fell is of another process.
func after(was, is uint64) uint64 {
	if is < was {
		return 0
	}
	return is - was
}

// totals are those of a status; what it does not say is 0.
func totals(s drain.Status) Totals {
	n := Totals{Evicted: s.Evicted}
	if s.Returned != nil {
		n.Returned = *s.Returned
	}
	if s.Ticketed != nil {
		n.Ticketed = *s.Ticketed
	}
	return n
}

func (n Totals) plus(more Totals) Totals {
	return Totals{n.Evicted + more.Evicted, n.Returned + more.Returned, n.Ticketed + more.Ticketed}
}

// after is how far the totals rose.
func (n Totals) after(was Totals) Totals {
	return Totals{after(was.Evicted, n.Evicted), after(was.Returned, n.Returned), after(was.Ticketed, n.Ticketed)}
}

// of reports whether the answer is one of the process that is counted.
func (c Counts) of(s drain.Status) bool {
	p := c.Process
	switch named := token(s.Boot); {
	case p == Process{}: // written down by an older rolloutd
	case p.Boot != "" || named != "":
		return p.Boot == named
	}
	return s.Accepted >= p.Accepted && s.Evicted >= c.Totals.Evicted+p.Evicted
}

// only reports, without further ado, that nobody but the process that is counted was
// heard: mostly it is so.
func (c Counts) only(s Sighting) bool {
	return len(s.Former) == 0 && !s.At.IsZero() && c.of(s.Status)
}

// lives is what is known of the processes of the member from the counted one on, the
// one that runs now last.
func (m Member) lives(s Sighting) []drain.Status {
	written := drain.Status{
		Active: m.Process.Held, Accepted: max(m.Process.Accepted, m.Admissions.Accepted),
	}
	n := m.Counts.Totals.plus(m.Process.Totals)
	written.Evicted, written.Returned, written.Ticketed = n.Evicted, &n.Returned, &n.Ticketed
	if s.At.IsZero() {
		return []drain.Status{written}
	}
	var all []drain.Status
	for _, l := range s.Former {
		if len(all) > 0 || m.Counts.of(l.Status) && !l.At.Before(m.Process.Heard) {
			all = append(all, l.Status)
		}
	}
	if all = append(all, s.Status); len(all) > 1 || m.Counts.of(s.Status) {
		return all
	}
	all = []drain.Status{written}
	for _, l := range s.Former {
		all = append(all, l.Status)
	}
	return append(all, s.Status)
}

// doings is what became of clients at a member since it was counted.
type doings struct {
	Totals
	lost int
}

// deeds sums up all processes of the member since it was counted: what one held that
// is no more is lost.
func (m Member) deeds(s Sighting) doings {
	if !m.Counted {
		return doings{lost: m.Lost}
	}
	if m.Counts.only(s) {
		return doings{m.Counts.did(s.Status), m.Lost}
	}
	var d doings
	was := m.Counts.Totals
	lives := m.lives(s)
	for i, life := range lives {
		did, held := totals(life).after(was), life.Active
		if i == 0 {
			did, held = m.Counts.did(life), min(held, m.couldHold(life))
		}
		if d.Totals = d.plus(did); i < len(lives)-1 {
			d.lost += held
		}
		was = Totals{}
	}
	if len(lives) == 1 {
		d.lost = m.Lost
	}
	return d
}

// renew goes on with the process that each member is now: what those before it evicted
// and saw return is kept, what they held is lost, and the new one is counted from its
// beginning.
func renew(t *turn) {
	if t.state.Rollout == nil {
		return
	}
	for _, f := range t.members().all {
		if m, sight := t.state.Members[f.key], t.seen.Instances[f.key]; m.Counted && !m.Counts.only(sight) {
			if lives := m.lives(sight); len(lives) > 1 {
				renewMember(t, &f, lives)
			}
		}
	}
}

func renewMember(t *turn, f *fact, lives []drain.Status) {
	was := t.state.Members[f.key]
	lost := was.deeds(t.seen.Instances[f.key]).lost
	admitted := uint64(0)
	for i, life := range lives {
		if i == 0 {
			admitted += after(was.Admissions.Accepted, life.Accepted)
		} else {
			admitted += life.Accepted
		}
	}
	t.fold(f.key)
	m := t.state.Members[f.key]
	m.Quota = Quota{}
	m.Counts = Counts{Counted: true}.noted(t.seen.Instances[f.key])
	if f.takes {
		t.rollout().Accepted += admitted
		m.Admissions = f.admissions
	}
	t.put(f.key, m)
	if lost > 0 {
		t.note(restarted(f.key, lost))
	}
}

func restarted(key discovery.InstanceID, lost int) string {
	return fmt.Sprintf("%s is another process now; %s of the one before were lost", key, counted(lost, "connection", "connections"))
}
