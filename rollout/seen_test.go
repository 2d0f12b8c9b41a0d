package rollout_test

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/sim"
)

// What a decision may wait for is news; counts, which a large fleet changes all
// the time, are not.
func TestNews(t *testing.T) {
	at := time.Unix(1, 0)
	seen := observed.Sighting{At: at, Status: contract.Status{State: contract.Draining, Rollout: "r", Epoch: 1, Step: 2, Active: 9}}
	failed := seen.After(contract.Status{}, drain.ErrDraining, at)
	again := failed.After(contract.Status{}, drain.ErrDraining, at.Add(1))
	for name, test := range map[string]struct {
		last, next observed.Sighting
		want       bool
	}{
		"the first answer": {observed.Sighting{}, seen, true},
		"drained":          {seen, said(seen, func(s *contract.Status) { s.State, s.Active = contract.Drained, 0 }), true},
		"another step":     {seen, said(seen, func(s *contract.Status) { s.Step++ }), true},
		"another epoch":    {seen, said(seen, func(s *contract.Status) { s.Epoch++ }), true},
		"another rollout":  {seen, said(seen, func(s *contract.Status) { s.Rollout = "" }), true},
		"no answer":        {seen, failed, true},
		"an answer again":  {failed, seen, true},
		"no answer twice":  {failed, again, true},
		"still no answer":  {again, again.After(contract.Status{}, drain.ErrDraining, at.Add(2)), false},
		"counts": {seen, said(seen, func(s *contract.Status) {
			s.Active, s.Accepted, s.Evicted, s.Returned = 8, 5, 4, new(uint64(3))
		}), false},
	} {
		if got := test.last.Differs(test.next); got != test.want {
			t.Errorf("%s: news is %t", name, got)
		}
	}
}

func said(s observed.Sighting, change func(*contract.Status)) observed.Sighting {
	change(&s.Status)
	return s
}

func TestContradictingAnswersAreNotBelieved(t *testing.T) {
	now := sim.Epoch
	said := contract.Status{State: contract.Draining, Active: 40, Accepted: 100, Evicted: 60, Rollout: "chat-1", Epoch: 1}
	sight := observed.Sighting{}.After(said, nil, now)
	liar := said
	liar.Active = 50
	now = now.Add(time.Second)
	if sight = sight.After(liar, nil, now); sight.Err == "" || sight.Status.Active != 40 {
		t.Fatalf("believed: %+v", sight)
	}
	insisting := sight
	for range 4 {
		insisting = insisting.After(liar, nil, now)
	}
	if insisting.Err != "" || insisting.Status.Active != 50 {
		t.Errorf("an instance that insists is not believed: %+v", insisting)
	}
	fewer := said
	fewer.Active = 39
	if sight = sight.After(fewer, nil, now); sight.Err != "" || sight.Status.Active != 39 {
		t.Errorf("not believed: %+v", sight)
	}
	anew := contract.Status{State: contract.Serving, Active: 70, Accepted: 170}
	if sight = sight.After(anew, nil, now); sight.Err != "" {
		t.Errorf("a new process is not believed: %s", sight.Err)
	}
}
