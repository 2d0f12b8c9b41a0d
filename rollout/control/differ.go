package control

import (
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/state"
)

const (
	// differFor is how long two counts must differ before it is told: they are
	// taken up to some seconds apart.
	differFor = 30 * time.Second
	// differBy and differShare: they differ by more than both of these.
	differBy    = 10
	differShare = 20 // a twentieth, 5 %, of the larger one
	// differFresh is how old a count may be that is compared.
	differFresh = 10 * time.Second
	// differKept is how long a comparison holds before the instance is heard again: one
	// that is idle is asked seldom.
	differKept = 45 * time.Second
)

// Differ remembers which counts differ, of one service. The zero value is ready; it
// reads no clock.
type Differ struct {
	found map[discovery.InstanceID]differing
}

// differing is one that was found when the instance was heard last, and since when.
type differing struct {
	said, reported int
	since, heard   time.Time
}

// Compare looks at each member that was heard since, and of which both sources speak
// now, and returns the lasting differences. A member of which one source is silent for a
// while has to differ anew.
func (d *Differ) Compare(members map[discovery.InstanceID]state.Member, seen observed.Seen, now time.Time) map[discovery.InstanceID]rollout.Difference {
	if len(d.found) == 0 && len(seen.Loads) == 0 {
		return nil
	}
	lasting := map[discovery.InstanceID]rollout.Difference{}
	found := map[discovery.InstanceID]differing{}
	for key, m := range members {
		x, again := d.found[key]
		if s := seen.Instances[key]; !again || s.Err != "" || !s.At.Equal(x.heard) || now.Sub(s.At) > differKept {
			said, reported, ok := bothCounts(m, seen, key, now)
			if !ok || !differ(said, reported) {
				continue
			}
			if x.said, x.reported, x.heard = said, reported, s.At; !again {
				x.since = now
			}
		}
		found[key] = x
		if x.heard.Sub(x.since) >= differFor {
			lasting[key] = rollout.Difference{Said: x.said, Reported: x.reported, Since: x.since}
		}
	}
	d.found = found
	return lasting
}

func bothCounts(m state.Member, seen observed.Seen, key discovery.InstanceID, now time.Time) (said, reported int, ok bool) {
	s, told := seen.Instances[key]
	l, loaded := seen.Loads[observed.Place{Colour: m.Colour, Addr: m.Addr}]
	if m.Drain == "" || !told || !loaded || s.Err != "" || len(l.Silent) > 0 ||
		now.Sub(s.At) > differFresh || now.Sub(l.At) > differFresh {
		return 0, 0, false
	}
	return s.Status.Held(), l.Held, true
}

func differ(a, b int) bool {
	gap := max(a, b) - min(a, b)
	return gap > differBy && gap*differShare > max(a, b)
}
