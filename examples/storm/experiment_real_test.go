//go:build real

package main

import (
	"io"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// programs are the project's own, built from the sources of now.
func programs(t *testing.T) fleet.Bin {
	t.Helper()
	bin, err := fleet.BuildBin(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestExperiment is make demo in small: everything in it is real. That nobody who is asked is without a connection, that no message of theirs is
// lost and that each is asked once is what broken looks at.
func TestExperiment(t *testing.T) {
	bin := programs(t)
	e := experiment{
		clients: 24, cap: units.Funnel{Close: 8, Every: units.Duration(time.Second)}, bin: bin, out: t.TempDir(), calm: 3 * time.Second,
		reconnect: clients.Reconnect{Base: 300 * time.Millisecond, Max: time.Second},
		handshake: 5 * time.Millisecond, notice: time.Minute,
	}
	var got []figures
	for _, name := range []string{storm, funnel, asked} {
		e.progress = newProgress(io.Discard, name)
		r, err := e.run(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		f := r.measure()
		t.Logf("%+v", f)
		if err := f.broken(e.cap); err != nil {
			t.Error(err)
		}
		got = append(got, f)
	}
	if got[0].Unplanned != e.clients {
		t.Errorf("storm: %d of %d clients were dropped", got[0].Unplanned, e.clients)
	}
	for _, f := range got[:2] {
		if f.AwayP50 == 0 || f.Lost == 0 {
			t.Errorf("%s: half of the clients were away for %d ms at most, and %d messages were lost: nobody measured", f.Name, f.AwayP50, f.Lost)
		}
	}
	// The last of 24 clients is let go 2.9 s after the first: in the third step.
	for _, f := range got[1:] {
		if f.SecondsToMove < 2.5 {
			t.Errorf("%s: moved in %g s, faster than the cap allows", f.Name, f.SecondsToMove)
		}
	}
}
