//go:build real

package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// TestScenarios performs every scenario in small with real parts: what watch shows, the cap, how often each client is disconnected and by
// what, and what else the scenario promises.
func TestScenarios(t *testing.T) {
	bin := programs(t)
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel() // each waits for most of its time
			e := experiment{
				clients: 80, cap: units.Funnel{Close: 16, Every: units.Duration(time.Second)}, bin: bin, out: t.TempDir(),
				reconnect: clients.Reconnect{Base: 500 * time.Millisecond, Max: 10 * time.Second}, calm: 11 * time.Second, // in less, who returns by himself is not known
				progress: newProgress(io.Discard, sc.name),
			}
			p, err := e.perform(t.Context(), sc)
			if err != nil {
				t.Fatal(err)
			}
			var texts strings.Builder
			for _, s := range p.watched {
				texts.WriteString("\n" + s.At.Format("05.0") + " " + string(s.Phase) + ": " + s.Text)
			}
			t.Logf("%+v\nwatch showed:%s", p.measure(), texts.String())
			if err := p.broken(); err != nil {
				t.Error(err)
			}
		})
	}
}
