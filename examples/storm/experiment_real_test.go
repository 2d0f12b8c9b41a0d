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

// TestExperiment is make demo in small: everything in it is real.
func TestExperiment(t *testing.T) {
	bin := programs(t)
	e := experiment{
		clients: 24, cap: units.Funnel{Close: 8, Every: units.Duration(time.Second)}, bin: bin, out: t.TempDir(), calm: 3 * time.Second,
		reconnect: clients.Reconnect{Base: 300 * time.Millisecond, Max: time.Second},
	}
	var got []figures
	for _, name := range []string{storm, funnel} {
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
	// The last of 24 clients is let go 2.9 s after the first: in the third step.
	if s := got[1].SecondsToMove; s < 2.5 {
		t.Errorf("funnel: moved in %g s, faster than the cap allows", s)
	}
}
