package xds_test

import (
	"testing"
	"testing/synctest"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// A refusal of what the proxy no longer asks for is no news for the operator.
func TestARefusalEndsWithTheSubscription(t *testing.T) {
	bad := func(_, name string, n uint32) bool { return name == "b" && n == 2 }
	for protocol, run := range map[string]func(w *world) (leave func()){
		"delta, a name": func(w *world) func() {
			c := w.client("edge-1")
			w.t.Cleanup(c.close)
			c.refuse = bad
			c.ask(rds, "a", "b")
			return func() { c.unsubscribe(rds, "b") }
		},
		"delta, the wildcard": func(w *world) func() {
			c := w.client("edge-1")
			w.t.Cleanup(c.close)
			c.refuse = bad
			c.ask(rds, "*", "a")
			return func() { c.unsubscribe(rds, "*") }
		},
		"state of the world, a name": func(w *world) func() {
			c := w.sotw("edge-1")
			w.t.Cleanup(c.close)
			c.refuse = bad
			c.ask(rds, "a", "b")
			return func() { c.answerNextWith(w, rds, "a") }
		},
		"state of the world, the wildcard": func(w *world) func() {
			c := w.sotw("edge-1")
			w.t.Cleanup(c.close)
			c.refuse = bad
			c.ask(rds, "*")
			return func() { c.answerNextWith(w, rds, "a") }
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, res(t, rds, "a", 1), res(t, rds, "b", 1))
			leave := run(w)
			synctest.Wait()
			w.Publish([]resource.Resource{res(t, rds, "a", 1), res(t, rds, "b", 2)})
			synctest.Wait()
			if p := w.proxy("edge-1"); len(p.Nacks) != 1 || len(p.Acknowledged) != 2 {
				t.Errorf("%s: before, %+v", protocol, p)
			}
			leave()
			synctest.Wait()
			if p := w.proxy("edge-1"); len(p.Nacks) != 0 || p.NackCount != 1 || len(p.Acknowledged) != 1 {
				t.Errorf("%s: after, %+v", protocol, p)
			}
		})
	}
}

// answerNextWith has the client ask for these names only, with its answer to a next
// version of a.
func (c *sotw) answerNextWith(w *world, typeURL string, names ...string) {
	c.mu.Lock()
	c.names[typeURL] = names
	c.mu.Unlock()
	w.Publish([]resource.Resource{res(c.t, typeURL, "a", 2), res(c.t, typeURL, "b", 2)})
}
