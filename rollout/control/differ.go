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
)

// Differ remembers since when counts differ, of one service. The zero value is
// ready; it reads no clock.
type Differ struct {
	since map[discovery.InstanceID]time.Time
}

// Compare looks at each member that both sources speak of now, and returns the
// lasting differences. A member of which one source is silent for a while has to
// differ anew.
func (d *Differ) Compare(members map[discovery.InstanceID]state.Member, seen observed.Seen, now time.Time) map[discovery.InstanceID]rollout.Difference {
	lasting := map[discovery.InstanceID]rollout.Difference{}
	since := map[discovery.InstanceID]time.Time{}
	for key, m := range members {
		said, reported, ok := bothCounts(m, seen, key, now)
		if !ok || !differ(said, reported) {
			continue
		}
		first, known := d.since[key]
		if !known {
			first = now
		}
		since[key] = first
		if now.Sub(first) >= differFor {
			lasting[key] = rollout.Difference{Said: said, Reported: reported, Since: first}
		}
	}
	d.since = since
	return lasting
}

func bothCounts(m state.Member, seen observed.Seen, key discovery.InstanceID, now time.Time) (said, reported int, ok bool) {
	s, told := seen.Instances[key]
	l, loaded := seen.Loads[observed.Place{Colour: m.Colour, Addr: m.Addr}]
	if m.Drain == "" || !told || !loaded || s.Err != "" || len(l.Silent) > 0 ||
		now.Sub(s.At) > differFresh || now.Sub(l.At) > differFresh {
		return 0, 0, false
	}
	return s.Status.Active, l.Held, true
}

func differ(a, b int) bool {
	gap := max(a, b) - min(a, b)
	return gap > differBy && gap*differShare > max(a, b)
}
