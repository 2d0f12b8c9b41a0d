package rollout_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/sim"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// small is an exact world that lets 10 go every 3 s, to clients that come back after
// 200 ms.
func small(blue, green, connections, proxies int) sim.Config {
	terms := policy.Default()
	terms.Funnel = units.Funnel{Close: 10, Every: units.Duration(3 * time.Second)}
	return sim.Config{
		Blue: blue, Green: green, Connections: connections, Proxies: proxies, Policy: terms, Exact: true,
		Back: back(200 * time.Millisecond), Latency: time.Millisecond,
	}
}

func back(d time.Duration) func(*rand.Rand) time.Duration {
	return func(*rand.Rand) time.Duration { return d }
}

// world is a simulated world whose promises a test holds.
type world struct {
	*sim.World
	t testing.TB
}

func newWorld(t testing.TB, conf sim.Config) world {
	w := world{sim.New(conf), t}
	t.Cleanup(func() {
		for _, f := range w.Faults() {
			t.Error(f)
		}
	})
	return w
}

// must carries out a command that has to be accepted.
func (w world) must(c rollout.Command) {
	w.t.Helper()
	if _, err := w.Do(c); err != nil {
		w.t.Fatal(err)
	}
}

// until lets time pass until done, or fails.
func (w world) until(d time.Duration, done func() bool) {
	w.t.Helper()
	if !w.Run(d, done) {
		w.t.Fatalf("not done after %v: %s", d, w.Reason().Text)
	}
}
