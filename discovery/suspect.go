package discovery

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// DefaultHold is how long a suspect absence lasts before it can be believed.
const DefaultHold = 10 * time.Second

// Reading is what a registry answered when asked for one service.
type Reading struct {
	// Registry is its name in sentences, such as "Consul".
	Registry string
	Service  Service
	Fleet    Fleet
	// Consistent: the registry vouches that the answer is not stale.
	Consistent bool
	At         time.Time
}

// Doubt is an absence that is not believed yet. The zero value is none.
type Doubt struct {
	missing []absence // sorted; never empty in a doubt
	since   time.Time // of the first reading that missed exactly these
	nothing bool      // that reading held no instance at all
}

// absence is an instance that a reading misses, as what it was.
type absence struct {
	id InstanceID
	as Colour // the colour under which it is listed; empty when it is not
}

// Due is when a consistent reading can settle the doubt; false when there is no
// doubt, or when time alone cannot settle it because nothing is listed.
func (d Doubt) Due(hold time.Duration) (time.Time, bool) {
	return d.since.Add(hold), len(d.missing) > 0 && !d.nothing
}

// Believe returns what is to be believed after a reading, and the doubt that is
// left. What is listed is believed at once, health included; only absence is
// doubted, and an instance that is listed under another colour is absent as what it
// was. When more than half of the instances of a colour in previous are missing, the
// missing are kept as they were, of whatever colour, and Suspect says so. A doubt ends
// when all are back, or when the same ones are still missing in a consistent reading at
// least hold after the first; whenever the missing change, hold starts again. That
// nothing is listed is never believed where there was something.
func Believe(previous Fleet, r Reading, d Doubt, hold time.Duration) (Fleet, Doubt) {
	listed := make(map[registered]Instance, len(r.Fleet.Instances))
	for _, i := range r.Fleet.Instances {
		listed[registered{i.Short(), i.Node}] = i
	}
	var kept []Instance
	var missing []absence
	known, lost := map[Colour]int{}, map[Colour]int{}
	for _, i := range previous.Instances {
		known[i.Colour]++
		now, ok := listed[registered{i.Short(), i.Node}]
		if ok && now.Colour == i.Colour {
			continue
		}
		lost[i.Colour]++
		missing = append(missing, absence{i.ID, now.Colour})
		if ok {
			now.Colour = i.Colour // all but its colour is believed
			i = now
		}
		kept = append(kept, i)
	}
	nothing := len(listed) == 0
	doubted := len(d.missing) > 0 || nothing
	for c, n := range lost {
		doubted = doubted || 2*n > known[c]
	}
	if len(missing) == 0 || !doubted {
		return r.Fleet, Doubt{}
	}
	if !slices.Equal(missing, d.missing) || nothing != d.nothing {
		d = Doubt{missing: missing, since: r.At, nothing: nothing}
	}
	if !nothing && r.Consistent && r.At.Sub(d.since) >= hold {
		return r.Fleet, Doubt{}
	}
	f := r.Fleet
	for _, i := range kept {
		delete(listed, registered{i.Short(), i.Node})
	}
	f.Instances = tellApart(slices.AppendSeq(kept, maps.Values(listed)))
	f.Twins = FindTwins(f.Instances)
	f.Suspect = suspicion(r, len(previous.Instances), missing, known, lost, hold)
	return f, d
}

// registered is what an instance is to its registry.
type registered struct {
	short InstanceID
	node  string
}

// tellApart gives those that share an id their nodes, and sorts.
func tellApart(all []Instance) []Instance {
	same := map[InstanceID]int{}
	for _, i := range all {
		same[i.ID]++
	}
	for n, i := range all {
		if same[i.ID] > 1 && i.Node != "" {
			all[n].ID = AtNode(i.Short(), i.Node)
		}
	}
	slices.SortFunc(all, byID)
	return all
}

func suspicion(r Reading, known int, missing []absence, of, lost map[Colour]int, hold time.Duration) string {
	switch listed, left := len(r.Fleet.Instances), len(r.Fleet.LeftOut); {
	case listed == 0 && left > 0:
		return fmt.Sprintf("%s lists no usable instance of %s (%d left out); the %d last known are kept until it lists some again",
			r.Registry, r.Service, left, known)
	case listed == 0:
		return fmt.Sprintf("%s lists no instance of %s; the %d last known are kept until it lists some again",
			r.Registry, r.Service, known)
	}
	var parts []string
	for _, c := range Colours {
		if lost[c] > 0 {
			parts = append(parts, fmt.Sprintf("%d of the %d known %s", lost[c], of[c], c))
		}
	}
	recoloured := ""
	if slices.ContainsFunc(missing, func(a absence) bool { return a.as != "" }) {
		recoloured = ", or lists them under another colour"
	}
	return fmt.Sprintf("%s no longer lists %s instances of %s%s; they are kept until the same is read %s later",
		r.Registry, strings.Join(parts, " and "), r.Service, recoloured, hold)
}
