package discovery

import (
	"cmp"
	"fmt"
	"slices"
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
	missing []InstanceID // sorted; never empty in a doubt
	since   time.Time    // of the first reading that missed exactly these
	nothing bool         // that reading held no instance at all
}

// Due is when a consistent reading can settle the doubt; false when there is no
// doubt, or when time alone cannot settle it because nothing is listed.
func (d Doubt) Due(hold time.Duration) (time.Time, bool) {
	return d.since.Add(hold), len(d.missing) > 0 && !d.nothing
}

// Believe returns what is to be believed after a reading, and the doubt that is
// left. What is listed is believed at once, health included; only absence is
// doubted. When more than half of the instances in previous are missing, the
// missing are kept as they were and Suspect says so. A doubt ends when all are
// back, or when the same ones are still missing in a consistent reading at least
// hold after the first; whenever the missing change, hold starts again. That
// nothing is listed is never believed where there was something.
func Believe(previous Fleet, r Reading, d Doubt, hold time.Duration) (Fleet, Doubt) {
	listed := map[InstanceID]bool{}
	for _, i := range r.Fleet.Instances {
		listed[i.ID] = true
	}
	var kept []Instance
	var missing []InstanceID
	for _, i := range previous.Instances {
		if !listed[i.ID] {
			kept, missing = append(kept, i), append(missing, i.ID)
		}
	}
	known, nothing := len(previous.Instances), len(listed) == 0
	doubted := len(d.missing) > 0 || nothing || 2*len(missing) > known
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
	f.Instances = append(kept, r.Fleet.Instances...)
	slices.SortFunc(f.Instances, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	f.Twins = FindTwins(f.Instances)
	f.Suspect = suspicion(r, known, len(missing), hold)
	return f, d
}

func suspicion(r Reading, known, missing int, hold time.Duration) string {
	switch listed, left := len(r.Fleet.Instances), len(r.Fleet.LeftOut); {
	case listed == 0 && left > 0:
		return fmt.Sprintf("%s lists no usable instance of %s (%d left out); the %d last known are kept until it lists some again",
			r.Registry, r.Service, left, known)
	case listed == 0:
		return fmt.Sprintf("%s lists no instance of %s; the %d last known are kept until it lists some again",
			r.Registry, r.Service, known)
	default:
		return fmt.Sprintf("%s no longer lists %d of the %d known instances of %s; they are kept until the same is read %s later",
			r.Registry, missing, known, r.Service, hold)
	}
}
