package rollout

import (
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Clients that are asked to come over count as let go from then on, although they are
// still there: the cap and the window bound the asks. They are closed at the end of their
// notice, as far apart as they were asked, while an order with a ceiling stands; one
// without has the notices stand still.

// canAsk reports whether the member's instance can ask, by its last answer.
func canAsk(s *situation, f *fact) bool {
	return slices.Contains(s.seen.Instances[f.key].Status.Can, contract.CanAsk)
}

// noticeOf is the notice that clients of the member get; 0 where they are not asked.
func noticeOf(s *situation, f *fact) units.Duration {
	if !canAsk(s, f) {
		return 0
	}
	return s.state.Rollout.Policy.Notice
}

// untold is what a member counts where shares are taken, without those that were asked.
func untold(s *situation, f *fact) int { return max(0, weight(s, f)-f.asked) }

// asked is how many the old side was asked and still holds.
func asked(s *situation) (n int) {
	for _, f := range s.members().old {
		n += f.asked
	}
	return n
}

// doubled bounds what is given by the policy's Double: whoever was asked may be connected
// on both sides until he has gone.
func doubled(s *situation, given state.Allowance) (state.Allowance, *blocker) {
	most := s.state.Rollout.Policy.Double
	if most == 0 {
		return given, nil
	}
	told := asked(s)
	switch left := most - told; {
	case left <= 0:
		return state.Allowance{}, blocked(WindowFull, "waiting: %d clients were asked to come over and may be connected twice, and double is %d", told, most)
	case left < given.Close:
		return state.Allowance{Close: left, Why: fmt.Sprintf("more might be connected twice than the %d of double", most)}, nil
	}
	return given, nil
}

// holdAsked has the notices stand still while the target takes nobody.
func holdAsked(t *turn) {
	if asked(t.situation) > 0 && t.stepRuns() {
		t.restep()
	}
}

// goOnAsked has them stand still while there is no room for who was asked, and go on while
// nobody more can be asked for another reason: they may be what it waits for.
func goOnAsked(t *turn, o oldSide, none *blocker) {
	room, known := t.room()
	switch full := none.Code == FreshCounts || known && room < 0; {
	case full:
		holdAsked(t)
	case asked(t.situation) > 0 && !t.stepRuns():
		giveOut(t, o, state.Allowance{})
	}
}
