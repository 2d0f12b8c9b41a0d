package xds_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// endpoints is a set of n endpoint resources of which the first has the given content.
func endpoints(t testing.TB, n int, first uint32) (set []resource.Resource, names []string) {
	for i := range n {
		name := fmt.Sprintf("cluster-%04d", i)
		names = append(names, name)
		content := uint32(1)
		if i == 0 {
			content = first
		}
		set = append(set, res(t, eds, name, content))
	}
	return set, names
}

func TestAChangeReachesEachProxyOnce(t *testing.T) {
	const proxies, resources = 200, 200
	synctest.Test(t, func(t *testing.T) {
		set, names := endpoints(t, resources, 1)
		w := start(t, set...)
		clients := make([]*client, proxies)
		for i := range clients {
			clients[i] = w.client(fmt.Sprintf("edge-%03d", i))
			clients[i].ask(eds, names...)
		}
		count := func() (responses, told int) {
			synctest.Wait()
			for _, c := range clients {
				c.mu.Lock()
				responses += c.responses
				for _, line := range c.said {
					told += strings.Count(line, "+")
				}
				c.responses, c.said = 0, nil
				c.mu.Unlock()
			}
			return responses, told
		}
		if n, told := count(); told != proxies*resources || n > told/10 {
			t.Errorf("%d resources in %d responses at the start, want one per resource and proxy, most of them together", told, n)
		}
		w.Publish(set)
		if n, _ := count(); n != 0 {
			t.Errorf("%d responses to an equal set", n)
		}
		set, _ = endpoints(t, resources, 2)
		w.Publish(set)
		if n, told := count(); n != proxies || told != proxies {
			t.Errorf("%d responses to one change, want %d", n, proxies)
		}
		for _, p := range w.Clients() {
			if !p.Holds(map[resource.Ref]string{set[0].Ref: version(t, set[0]), set[1].Ref: version(t, set[1])}) {
				t.Errorf("%s does not hold the change", p.Node)
			}
		}
		var closing sync.WaitGroup
		for _, c := range clients {
			closing.Go(func() { c.stop(); _ = c.conn.Close(); c.done.Wait() })
		}
		closing.Wait()
	})
}

func TestAProxyThatFellBehindTheLogGetsTheNewestOfEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		c := w.client("edge-1")
		defer c.close()
		c.ask(eds, "a", "b")
		c.hears()
		w.Publish([]resource.Resource{res(t, eds, "a", 1), res(t, eds, "b", 1)})
		c.hears("EDS +a:1", "EDS +b:1")
		c.hold[eds] = true
		w.Publish([]resource.Resource{res(t, eds, "a", 2), res(t, eds, "b", 1)})
		c.hears("EDS +a:2")
		for i := range uint32(3000) { // while it is slow; more changes than are remembered
			w.Publish([]resource.Resource{res(t, eds, "a", 3+i), res(t, eds, "b", 1)})
		}
		c.hears()
		c.release(eds)
		c.hears("EDS +a:3002")
	})
}

func TestTheLogIsBoundedAndComplete(t *testing.T) {
	// A proxy is told of everything, however many changes come at once.
	synctest.Test(t, func(t *testing.T) {
		set, names := endpoints(t, 3000, 1)
		w := start(t, set...)
		c := w.client("edge-1")
		defer c.close()
		c.held[eds] = map[string]string{}
		for _, r := range set {
			c.held[eds][r.Name] = version(t, r)
		}
		c.ask(eds, names...)
		c.hears()
		for i, r := range set {
			set[i] = res(t, eds, r.Name, 7)
		}
		w.Publish(set)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.responses != len(set) {
			t.Errorf("%d responses to %d changes", c.responses, len(set))
		}
	})
}

func TestManyTypesOnOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1))
		c := w.client("edge-1")
		defer c.close()
		c.ask(cds)
		for i := range 40 { // more than go-control-plane's channel has room for
			c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: fmt.Sprint("type.googleapis.com/t", i)})
		}
		c.ask(eds, "none")
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil || c.responses != 42 {
			t.Errorf("%d responses, %v", c.responses, c.err)
		}
	})
}
