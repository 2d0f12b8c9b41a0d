package state

import (
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// Counts is where a member's totals were when the rollout began to count.
type Counts struct {
	// Counted: Totals are the instance's when the rollout began to count; later
	// totals minus these are the rollout's own. Invariant: they are 0 while it is not
	// counted.
	Counted bool `json:"counted,omitempty"`
	observed.Totals
	// Admissions are its totals when they were last added to the rollout's; they
	// are kept for the target only.
	observed.Admissions
	// Lost is how many connections it held when its process died. Invariant: not
	// below 0.
	Lost int `json:"lost,omitempty"`
	// Process is the one that is counted; zero while it is not.
	Process Process `json:"process,omitzero"`
}

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
	// Held is how many connections it had, without those that were asked, which are among
	// the evicted already; Totals are its own since it was counted.
	// Invariant: Held is not below 0.
	Held int `json:"held,omitempty"`
	observed.Totals
	// Shut: it refused new connections, so that what it holds can only fall.
	Shut bool `json:"shut,omitempty"`
}

// Bounds are what a process may be taken for, whatever it says: how many connections it holds
// at least and at most, and how many it let go at most since it was counted.
type Bounds struct {
	Least, Most int
	LetGo       uint64
}

// Noted is the counts with the member's process as it is seen now. One that was Shut holds no
// more than it did, less what it closed.
func (c Counts) Noted(s observed.Sighting, b Bounds) Counts {
	if s.At.IsZero() {
		return c
	}
	was := c.Process
	p := Process{Boot: tokenAfter(was.Boot, s.Status.Boot), Held: max(0, max(b.Least, min(s.Status.Active, b.Most))-s.Status.Asked), Shut: s.Refusing()}
	if p.Boot == "" {
		p.Heard, p.Accepted = s.At, s.Status.Accepted
	}
	p.Totals = c.Did(s.Status)
	p.Evicted = min(p.Evicted, b.LetGo)
	if was.Shut {
		p.Held = max(0, min(p.Held, was.Held+int(was.Evicted)-int(p.Evicted)))
	}
	c.Process = p
	return c
}

// Did is what the counted process did since it was counted, by its answer s. It cannot
// have closed more than it could hold.
func (c Counts) Did(s contract.Status) observed.Totals {
	t := observed.TotalsOf(s).After(c.Totals)
	if p := c.Process; p != (Process{}) {
		t.Evicted = min(t.Evicted, p.Evicted+c.held(s))
	}
	return t
}

// held is the most that the counted process may have held by its answer s: what it did
// when it was last written down, and what it admitted since.
func (c Counts) held(s contract.Status) uint64 {
	n := uint64(c.Process.Held)
	if !c.Process.Shut {
		n += observed.Risen(c.Admissions.Accepted, s.Accepted)
	}
	return n
}

// CouldHold is that, as a number of connections.
func (c Counts) CouldHold(s contract.Status) int { return int(min(contract.MaxTotal, c.held(s))) }

// Of reports whether the answer is one of the process that is counted.
func (c Counts) Of(s contract.Status) bool {
	p := c.Process
	switch named := tokenAfter(p.Boot, s.Boot); {
	case p == Process{}: // written down by an older rolloutd
	case p.Boot != "" || named != "":
		return p.Boot == named
	}
	return s.Accepted >= p.Accepted && s.Evicted >= c.Totals.Evicted+p.Evicted
}

// Only reports, without further ado, that nobody but the process that is counted was
// heard: mostly it is so.
func (c Counts) Only(s observed.Sighting) bool {
	return len(s.Former) == 0 && !s.At.IsZero() && c.Of(s.Status)
}

// Lives is what is known of the processes of the member from the counted one on, the
// one that runs now last.
func (m Member) Lives(s observed.Sighting) []contract.Status {
	written := contract.Status{
		Active: m.Process.Held, Accepted: max(m.Process.Accepted, m.Admissions.Accepted),
	}
	n := m.Counts.Totals.Plus(m.Process.Totals)
	written.Evicted, written.Returned, written.Ticketed = n.Evicted, &n.Returned, &n.Ticketed
	if s.At.IsZero() {
		return []contract.Status{written}
	}
	var all []contract.Status
	for _, l := range s.Former {
		if len(all) > 0 || m.Counts.Of(l.Status) && !l.At.Before(m.Process.Heard) {
			all = append(all, l.Status)
		}
	}
	if all = append(all, s.Status); len(all) > 1 || m.Counts.Of(s.Status) {
		return all
	}
	all = []contract.Status{written}
	for _, l := range s.Former {
		all = append(all, l.Status)
	}
	return append(all, s.Status)
}

// Doings is what became of clients at a member since it was counted.
type Doings struct {
	observed.Totals
	Lost int
}

// Deeds sums up all processes of the member since it was counted: what one held that
// is no more is lost.
func (m Member) Deeds(s observed.Sighting) Doings {
	if !m.Counted {
		return Doings{Lost: m.Lost}
	}
	if m.Counts.Only(s) {
		return Doings{m.Counts.Did(s.Status), m.Lost}
	}
	var d Doings
	was := m.Counts.Totals
	lives := m.Lives(s)
	for i, life := range lives {
		did, held := observed.TotalsOf(life).After(was), life.Active-life.Asked
		if i == 0 {
			did, held = m.Counts.Did(life), min(held, m.CouldHold(life))
		}
		if d.Totals = d.Plus(did); i < len(lives)-1 {
			d.Lost += held
		}
		was = observed.Totals{}
	}
	if len(lives) == 1 {
		d.Lost = m.Lost
	}
	return d
}

// Token stands for a boot in the stored state, in few bytes.
func Token(boot string) string { return tokenAfter("", boot) }

// tokenAfter is Token, without a new string where the token is the known one, as it mostly is.
func tokenAfter(known, boot string) string {
	if boot == "" {
		return ""
	}
	hash := uint64(14695981039346656037) // FNV-1a, 64 bits
	for i := range len(boot) {
		hash = (hash ^ uint64(boot[i])) * 1099511628211
	}
	var digits [13]byte
	if token := strconv.AppendUint(digits[:0], hash, 36); string(token) != known {
		return string(token)
	}
	return known
}
