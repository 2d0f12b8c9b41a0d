package observed

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Sighting is what is known of one drain endpoint.
type Sighting struct {
	// Status is the last answer, got at At. At is zero before the first answer.
	Status contract.Status
	At     time.Time
	// PerSecond is the rate of admitted connections between the last two answers.
	PerSecond float64
	// Since is when the process that answers was first heard, ReturnedAt when it last
	// was seen to have admitted a returning client; zero is never.
	Since, ReturnedAt time.Time
	// ReturnedPerSecond is the rate of returning clients between the last two answers.
	ReturnedPerSecond float64
	// Err says why the newest request had no answer; empty when it had one.
	Err string
	// ErrAt is when the newest failed request ended, FailingSince when the first
	// of an unbroken row of failures did; zero while it answers.
	ErrAt, FailingSince time.Time
	// Refused: every failure of that row was a refused connection, as of a
	// process that no longer exists.
	Refused bool
	// Failures is how many requests that row has, and Contradicts how many of the newest
	// were answered by what contradicts Status.
	Failures, Contradicts int
	// EmptySince is when it began to say that it holds nothing, of an unbroken row of
	// answers; zero while it holds some.
	EmptySince time.Time
	// Former is the processes that answered before the one of Status, oldest first; at
	// most formersKept. Never changed once made.
	Former []Life
	// Peers is whom it hears of.
	Peers Peers
	// PeerRefusals is whom it refused lately.
	PeerRefusals PeerRefusals
}

// After is the sighting once a request was answered by status, or failed with err,
// at now. An answer that contradicts the one before counts as a failure, until the
// instance has insisted on it: it knows better than anybody, and more is the safer side.
func (s Sighting) After(status contract.Status, err error, now time.Time) Sighting {
	last := s
	if err == nil && !last.At.IsZero() {
		if err = contradiction(last.Status, status); last.Contradicts >= insists {
			err = nil
		}
	}
	if err == nil {
		s.Err, s.FailingSince, s.Refused, s.Failures, s.Contradicts = "", time.Time{}, false, 0, 0
		if status.Held() > 0 {
			s.EmptySince = time.Time{}
		} else if s.EmptySince.IsZero() {
			s.EmptySince = now
		}
		if same := last.At.IsZero() || sameProcess(last.Status, status); !same {
			s.Former = append(slices.Clip(last.Former[max(0, len(last.Former)+1-formersKept):]), Life{last.Status, last.At})
		} else if gap := now.Sub(last.At).Seconds(); !last.At.IsZero() && gap > 0.05 {
			s.PerSecond = float64(status.Accepted-last.Status.Accepted) / gap
		}
		s.returning(last, status, now)
		same := !last.At.IsZero() && sameProcess(last.Status, status)
		s.Peers, s.PeerRefusals = last.Peers.after(last.Status, status, same, now), last.PeerRefusals.after(last.Status, status, same, last.At, now)
		s.Status, s.At = status, now
		return s
	}
	if s.Contradicts = 0; errors.As(err, new(contradicting)) {
		s.Contradicts = last.Contradicts + 1
	}
	refused := errors.Is(err, syscall.ECONNREFUSED)
	if last.Err == "" {
		s.FailingSince, s.Refused = now, refused
	} else if refused && !last.Refused {
		s.FailingSince, s.Refused = now, true
	} else {
		s.Refused = refused
	}
	s.Err, s.ErrAt, s.Failures = err.Error(), now, last.Failures+1
	return s
}

// returning follows how many returning clients come: last is the sighting before this
// answer.
func (s *Sighting) returning(last Sighting, status contract.Status, now time.Time) {
	was, is := TotalsOf(last.Status).Returned, TotalsOf(status).Returned
	if last.At.IsZero() || !sameProcess(last.Status, status) {
		s.Since, s.ReturnedPerSecond = now, 0
		return
	}
	if is > was {
		s.ReturnedAt = now
	}
	if gap := now.Sub(last.At).Seconds(); gap > 0.05 && is >= was {
		s.ReturnedPerSecond = float64(is-was) / gap
	}
}

// Differs reports whether the sighting next says more than new counts.
func (s Sighting) Differs(next Sighting) bool {
	a, b := s.Status, next.Status
	return a.Boot != b.Boot || a.State != b.State || a.Rollout != b.Rollout || a.Epoch != b.Epoch || a.Step != b.Step ||
		(s.Err == "") != (next.Err == "") || s.Refused != next.Refused || s.Failures < SilentAfter && next.Failures >= SilentAfter
}

// Refusing reports whether the last answer said that it takes no new connections.
func (s Sighting) Refusing() bool { return !s.At.IsZero() && s.Status.State != contract.Serving }

// contradiction reports that an instance says what cannot be so: that it holds more
// than before although it refuses, and admitted none in between.
func contradiction(before, now contract.Status) error {
	same := before.Boot == now.Boot && before.State != contract.Serving && before.Rollout == now.Rollout && before.Epoch == now.Epoch && before.Accepted == now.Accepted
	if same && now.Active > before.Active {
		return contradicting(fmt.Sprintf("its answers contradict each other: it holds %d connections after %d and admitted none in between; mend its drain endpoint", now.Active, before.Active))
	}
	if sameProcess(before, now) {
		return impossible(before, now)
	}
	return nil
}

// contradicting is an answer that cannot be so after the one before.
type contradicting string

func (c contradicting) Error() string { return string(c) }

// insists is how many such answers in a row are not believed.
const insists = 4

// Patience is how long an instance that does not answer is waited for before the others
// go on without it.
const Patience = 5 * time.Second

// SilentAfter is how many requests in a row an instance of the target may leave
// unanswered before it is taken for sick.
const SilentAfter = 2

// impossible reports that an instance says it has closed more than it can have: what it
// held before, and what it admitted since.
func impossible(before, now contract.Status) error {
	closed, admitted := now.Evicted-before.Evicted, now.Accepted-before.Accepted
	if most := uint64(before.Active) + admitted; closed > most {
		return contradicting(fmt.Sprintf("its answers contradict each other: it let %d connections go after it held %d and admitted %d more; mend its drain endpoint", closed, before.Active, admitted))
	}
	return nil
}

// Life is a process that is no more, as it was last heard.
type Life struct {
	Status contract.Status
	At     time.Time
}

// formersKept is how many earlier processes of a member a sighting remembers.
const formersKept = 8

// sameProcess reports whether two answers, one after the other, are of one process.
func sameProcess(before, now contract.Status) bool {
	if before.Boot != "" || now.Boot != "" {
		return before.Boot == now.Boot
	}
	return now.Accepted >= before.Accepted && now.Evicted >= before.Evicted && now.Refused >= before.Refused
}
