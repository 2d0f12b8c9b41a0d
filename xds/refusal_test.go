package xds_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// The cause of a refusal may lie outside of what was refused: it is sent again, at growing
// distances or when an operator says so, and counts until it is acknowledged.
func TestWhatWasRefusedIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, lds, "web", 1), res(t, lds, "raw", 1))
		c := w.client("edge-1")
		defer c.close()
		taken := true
		c.refuse = func(_, _ string, _ uint32) bool { return taken }
		c.ask(lds)
		c.hears("LDS +raw:1", "LDS +web:1")
		if p := w.proxy("edge-1"); len(p.Nacks) != 2 {
			t.Errorf("every refusal is kept: %+v", p.Nacks)
		}
		for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			time.Sleep(wait*time.Second - time.Millisecond)
			c.hears()
			time.Sleep(time.Millisecond)
			synctest.Wait()
			c.mu.Lock()
			if len(c.said) != 2 {
				t.Errorf("after %d s it heard %v", wait, c.said)
			}
			c.said = nil
			c.mu.Unlock()
		}
		c.mu.Lock()
		taken = false
		c.mu.Unlock()
		w.Retry()
		c.hears("LDS +raw:1", "LDS +web:1")
		p := w.proxy("edge-1")
		if len(p.Nacks) != 0 || !p.Holds(map[resource.Ref]string{ref(lds, "web"): "", ref(lds, "raw"): ""}) {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Hour)
		c.hears()
	})
}
