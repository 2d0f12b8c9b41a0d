package rollout_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// Whatever clock wrote a state, nothing in it is later than now when it is resumed, but
// for what is awaited, and that is awaited no longer than it was.
func TestResumedWhateverTheClockSays(t *testing.T) {
	every := 3 * time.Second
	for _, ahead := range []time.Duration{-24 * time.Hour, -time.Minute, -time.Second, 0, time.Second, time.Hour, 10000 * time.Hour} {
		w := newWorld(t, small(2, 2, 100, 2))
		w.Pass(5 * time.Second)
		w.must(rollout.Promote{Service: "chat", Target: discovery.Green, Overrides: policy.Overrides{Close: new(10), Every: new(units.Duration(every))}})
		w.until(time.Minute, func() bool { return w.State().Rollout != nil && w.State().Rollout.Step == 3 })
		now := w.Now().Add(-ahead)
		s := w.State().Resumed(now)
		if err := s.Check(); err != nil {
			t.Errorf("%s ahead: %v", ahead, err)
		}
		if latest, at := newestIn(reflect.ValueOf(s)); latest.After(now) {
			t.Errorf("%s ahead: %s is %s after now", ahead, at, latest.Sub(now))
		}
		if wait := s.Rollout.StepAt.Sub(now); wait < every || wait > every+every/10 {
			t.Errorf("%s ahead: the next step comes after %s; the last may have been ordered just now", ahead, wait)
		}
	}
}

// newestIn is the newest moment anywhere in a value, and where it stands, but for those
// that are awaited. History is what was, by the clock of then.
func newestIn(v reflect.Value) (newest time.Time, where string) {
	consider := func(at time.Time, path string) {
		if at.After(newest) {
			newest, where = at, path
		}
	}
	var walk func(reflect.Value, string)
	walk = func(v reflect.Value, path string) {
		if v.Type() == reflect.TypeFor[time.Time]() {
			consider(v.Interface().(time.Time), path)
			return
		}
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem(), path)
			}
		case reflect.Struct:
			for f, x := range v.Fields() {
				if f.IsExported() && f.Name != "History" && f.Name != "StepAt" && f.Name != "LearnAt" {
					walk(x, path+"."+f.Name)
				}
			}
		case reflect.Slice:
			for _, x := range v.Seq2() {
				walk(x, path)
			}
		case reflect.Map:
			for _, x := range v.Seq2() {
				walk(x, path)
			}
		}
	}
	walk(v, "")
	return newest, where
}

// No wait is shortened by a clock that is set while rolloutd is away: what is certain of the
// time that has passed is what was stored.
func TestNoClockShortensAWait(t *testing.T) {
	const soak, away = 10 * time.Minute, time.Minute
	for _, ahead := range []time.Duration{-24 * time.Hour, -time.Hour, -soak, 0, time.Hour} {
		w := newWorld(t, small(2, 2, 20, 2))
		w.Policy.Canary, w.Policy.Soak, w.Policy.Grace = units.Whole/10, units.Duration(soak), units.Duration(soak)
		w.Pass(5 * time.Second)
		w.must(rollout.Promote{Service: "chat", Target: discovery.Green})
		for _, phase := range []state.Phase{state.Shifting, state.Draining} {
			w.until(2*soak, func() bool { return w.State().Phase() == phase && !w.State().Rollout.Settled.IsZero() })
			began := w.Now()
			w.Pass(away)
			w.RestartAhead(ahead)
			ended := func() bool { return w.State().Phase() != phase || w.State().Rollout.Step > 0 }
			w.until(2*soak, ended)
			if took := w.Now().Sub(began); took < soak || took > soak+away+5*time.Second {
				t.Errorf("%s ahead: %s ended after %s, want %s, or at most as much again as was away", ahead, phase, took, soak)
			}
		}
	}
}
