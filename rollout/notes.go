package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// Notes is what the owners of instances should mend: what discovery says of their
// registrations, and what does not fit what is known of their processes.
func Notes(s State, seen Seen, now time.Time) []discovery.Note {
	view := newSituation(s, seen, now)
	out := append([]discovery.Note{}, seen.Fleet.Notes...)
	for _, f := range view.members().all {
		note := func(format string, args ...any) {
			out = append(out, discovery.Note{ID: f.key, Text: fmt.Sprintf(format, args...)})
		}
		switch {
		case f.recoloured:
			note("%s", f.recolouring())
		case f.twin.rival:
			note("%s has the other colour and %s, too; neither gets new connections or orders", f.twin.with, f.twin.shares)
		case f.twin.second:
			note("%s has %s, too; both count once", f.twin.with, f.twin.shares)
		case f.twin.borrowed:
			note("%s has %s, too; it counts as the other's", f.twin.with, f.twin.shares)
		}
	}
	for _, c := range discovery.Colours {
		for _, f := range view.keptOpen(c) {
			if f.instance == nil {
				out = append(out, discovery.Note{ID: f.key, Text: "it is not in discovery any more and serves; it keeps new connections while no other of its colour takes them"})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b discovery.Note) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
