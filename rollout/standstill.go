package rollout

// standStill closes nothing for an interval, after which the pace is judged anew.
func standStill(t *turn, pace Pace) Reason {
	setPace(t, pace)
	if t.stepRuns() {
		t.restep()
	}
	r := t.rollout()
	r.StepAt = t.now.Add(r.Policy.Funnel.Every.D())
	t.wakeBy(r.StepAt)
	return t.paceReason(TargetSick)
}
