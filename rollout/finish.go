package rollout

import (
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

func (d *decider) soaking() Reason {
	r := d.s.Rollout
	d.countNew()
	patient := d.now.Sub(latest(r.Since, d.seen.Watching)) < instancePatience
	if key, ok := d.silent(); ok && patient {
		return d.wait(reason(FreshCounts, "%s is empty; waiting: %s has not said yet what it let go and saw return", r.From, key))
	}
	r = d.s.Rollout
	d.observe()
	d.track(false)
	moved := d.moved()
	end := r.Since.Add(r.Policy.ReturnTimeout.D())
	few := 0
	if !moved.Exact {
		few = int(moved.Evicted+moved.Lost)/100 + 1 // an estimate hardly says none
	}
	if moved.Known && moved.Outstanding > few && d.now.Before(end) {
		d.wakeBy(end)
		return d.wait(reason(IsSoaking, "%s not back yet; soaking until %s", counted(moved.Outstanding, "evicted client is", "evicted clients are"), clock(end)))
	}
	d.finish(Done)
	return reason(IsSteady, "all new connections go to %s", d.s.Live)
}

// silent names an instance that was counted and has said nothing since this
// process started.
func (d *decider) silent() (discovery.InstanceID, bool) {
	for _, key := range d.all() {
		if m := d.s.Members[key]; m.Counted && m.Drain != "" && d.seen.Instances[key].At.IsZero() {
			return key, true
		}
	}
	return "", false
}

// finish ends the rollout and remembers it.
func (d *decider) finish(how Outcome) {
	moved := d.moved()
	for key, m := range d.s.Members {
		d.fold(key, m)
	}
	d.touch()
	r := d.s.Rollout
	rec := Record{
		ID: r.ID, From: r.From, To: r.To, Outcome: how, Forced: r.Forced, Started: r.Started, Ended: d.now,
		Evicted: moved.Evicted, Lost: int(moved.Lost), LeftBehind: r.LeftBehind, Events: r.Events, Omitted: r.Omitted,
	}
	if gone := moved.gone(); moved.Known {
		away := min(gone, uint64(moved.Outstanding+moved.NeverBack))
		rec.Returned, rec.Estimated = new(gone-away), !moved.Exact
		if moved.Exact {
			rec.Returned = &moved.Returned
		}
		if how != Superseded {
			rec.NeverBack = &away
		}
	}
	if r.Aborting {
		rec.From, rec.To = r.To, r.From
		if how == Done {
			rec.Outcome = Aborted
		}
	}
	d.s.Live = r.To
	d.s.Rollout = nil
	d.s.History = append(d.s.History, rec)
	if over := len(d.s.History) - historyKept; over > 0 {
		d.s.History = slices.Delete(d.s.History, 0, over)
	}
	d.wake = d.now
}
