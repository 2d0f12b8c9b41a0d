package xds_test

import (
	"strings"
	"testing"
	"testing/synctest"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

func TestNothingIsAnsweredBeforeTheFirstPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		c := w.client("edge-1")
		defer c.close()
		c.ask(cds)
		c.ask(eds, "a")
		c.hears()
		w.Publish(nil)
		c.hears("CDS", "EDS -a") // an empty wildcard, and "there is none"
		w.Publish([]resource.Resource{res(t, eds, "a", 1)})
		c.hears("EDS +a:1")
	})
}

func TestAReconnectWithEqualVersionsIsSentNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := []resource.Resource{res(t, cds, "a", 1), res(t, eds, "a", 1), res(t, lds, "web", 1), res(t, rds, "web", 1, ref(cds, "a"))}
		all := map[resource.Ref]string{}
		for _, r := range set {
			all[r.Ref] = version(t, r)
		}
		w := start(t, set...)
		c := w.client("edge-1")
		everything := func() {
			c.ask(cds)
			c.ask(eds, "a")
			c.ask(lds)
			c.ask(rds, "web")
		}
		everything()
		c.hears("CDS +a:1", "EDS +a:1", "LDS +web:1", "RDS +web:1")
		if !w.proxy("edge-1").Holds(all) {
			t.Error("the proxy acknowledged everything and does not count as holding it")
		}
		for _, server := range []*world{w, start(t, set...)} { // the same process, and one that knows nothing of it
			c.close()
			c.connect(server)
			everything()
			c.hears()
			if p := server.proxy("edge-1"); !p.Holds(all) || !p.Connected || p.Streams != 1 {
				t.Errorf("after the reconnect: %+v", p)
			}
		}
		c.close()
		if p := w.proxy("edge-1"); p.Connected || p.Lost.IsZero() || !p.Holds(all) {
			t.Errorf("after it left: %+v", p)
		}
	})
}

func TestNothingIsRemovedThatThisProcessDidNotPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, lds, "web", 1), res(t, rds, "web", 1), res(t, rds, "gone", 1), res(t, cds, "gone", 1))
		c := w.client("edge-1")
		defer c.close()
		for _, typeURL := range []string{cds, eds, lds, rds} {
			c.held[typeURL] = map[string]string{"old": "0123456789abcdef"}
		}
		c.ask(cds, "*", "old")
		c.ask(eds, "old")
		c.ask(lds)
		c.ask(rds, "old", "gone")
		c.hears("CDS +a:1 +gone:1", "LDS +web:1", "RDS +gone:1")
		c.ask(rds, "old") // asked again, still claimed
		c.hears()
		w.Publish([]resource.Resource{res(t, cds, "a", 1)})
		c.hears("CDS -gone", "RDS -gone") // but not "old" of any type, nor the listener
		if p := w.proxy("edge-1"); !p.Holds(map[resource.Ref]string{ref(cds, "old"): "", ref(lds, "old"): "", ref(lds, "web"): ""}) {
			t.Errorf("holds %v", p.Acknowledged)
		}
	})
}

func TestAWriteOnceResourceIsNeverSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, lds, "web", 1))
		c := w.client("edge-1")
		defer c.close()
		c.ask(lds)
		c.hears("LDS +web:1")
		withheld := func(want string) {
			t.Helper()
			synctest.Wait()
			got := w.proxy("edge-1").Withheld
			if want == "" && len(got) == 0 {
				return
			}
			if len(got) != 1 || got[0].Ref != ref(lds, "web") || got[0].Why != want {
				t.Errorf("withheld %+v, want %q", got, want)
			}
		}
		next, first := res(t, lds, "web", 2), res(t, lds, "web", 1)
		_, version, err := first.Encode()
		if err != nil {
			t.Fatal(err)
		}
		next.Earlier = map[string]string{version: "HTTP/1.0"}
		w.Publish([]resource.Resource{next, res(t, lds, "tcp", 1)})
		c.hears("LDS +tcp:1")
		withheld("proxy edge-1 keeps the Listener web that it has, which lacks HTTP/1.0; drain that Envoy and restart it to give it the new one")
		w.Publish([]resource.Resource{res(t, lds, "tcp", 1)})
		c.hears()
		withheld("proxy edge-1 keeps Listener web; drain that Envoy and restart it to take it away")
		w.Publish([]resource.Resource{res(t, lds, "web", 1), res(t, lds, "tcp", 1)})
		c.hears()
		withheld("")

		c.close() // a reconnect, which claims
		w.Publish([]resource.Resource{res(t, lds, "web", 3), res(t, lds, "tcp", 1)})
		c.connect(w)
		c.ask(lds)
		c.hears()
		withheld("proxy edge-1 keeps the Listener web that it has, which has other options or is of another release; drain that Envoy and restart it to give it the new one")
		c.close() // a restart, which claims nothing
		clear(c.held)
		c.connect(w)
		c.ask(lds)
		c.hears("LDS +tcp:1", "LDS +web:3")
		withheld("")
	})
}

func TestAResourceWaitsForWhatItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, rds, "web", 1, ref(cds, "a")))
		c := w.client("edge-1")
		defer c.close()
		c.hold[cds] = true
		c.ask(rds, "web")
		c.ask(cds)
		c.hears("CDS +a:1")
		if got := w.proxy("edge-1").Withheld; len(got) != 1 ||
			got[0].Why != "RouteConfiguration web waits until proxy edge-1 has acknowledged Cluster a" {
			t.Errorf("withheld %+v", got)
		}
		c.release(cds)
		c.hears("RDS +web:1")
		if got := w.proxy("edge-1").Withheld; len(got) != 0 {
			t.Errorf("withheld %+v", got)
		}
		// Make before break: the new cluster, the route, and the old cluster last.
		c.hold[cds], c.hold[rds] = true, true
		w.Publish([]resource.Resource{res(t, cds, "b", 1), res(t, rds, "web", 2, ref(cds, "b"))})
		c.hears("CDS +b:1")
		c.release(cds)
		c.hears("RDS +web:2")
		if got := w.proxy("edge-1").Withheld; len(got) != 1 || got[0].Why != "proxy edge-1 still uses Cluster a in RouteConfiguration web" {
			t.Errorf("withheld %+v", got)
		}
		c.release(rds)
		c.hears("CDS -a")
	})
}

func TestARemovalWaitsUntilAReconnectedProxyHasSaidWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, cds, "b", 1), res(t, rds, "web", 1, ref(cds, "a")))
		c := w.client("edge-1")
		defer c.close()
		c.ask(cds)
		c.ask(rds, "web")
		c.hears("CDS +a:1 +b:1", "RDS +web:1")
		c.close()
		w.Publish([]resource.Resource{res(t, cds, "b", 1), res(t, rds, "web", 2, ref(cds, "b"))})
		c.connect(w)
		c.hold[rds] = true
		c.ask(cds)
		c.hears()
		c.ask(rds, "web")
		c.hears("RDS +web:2")
		c.release(rds)
		c.hears("CDS -a")
	})
}

func TestAClusterIsFollowedByItsEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, cds, "b", 1), res(t, eds, "a", 1), res(t, eds, "b", 1))
		c := w.client("edge-1")
		defer c.close()
		c.ask(cds)
		c.hears("CDS +a:1 +b:1")
		c.ask(eds, "a", "b")
		c.hears("EDS +a:1", "EDS +b:1")
		w.Publish([]resource.Resource{res(t, cds, "a", 2), res(t, cds, "b", 1), res(t, eds, "a", 1), res(t, eds, "b", 1)})
		c.hears("CDS +a:2", "EDS +a:1")
		w.Publish([]resource.Resource{res(t, cds, "a", 3), res(t, cds, "b", 1), res(t, eds, "a", 2), res(t, eds, "b", 2)})
		c.hears("CDS +a:3", "EDS +a:2", "EDS +b:2")

		c.close() // the cluster changes while it is away: its endpoints are equal, but have to follow
		w.Publish([]resource.Resource{res(t, cds, "a", 4), res(t, cds, "b", 1), res(t, eds, "a", 2), res(t, eds, "b", 2)})
		c.connect(w)
		c.ask(cds)
		c.ask(eds, "a", "b")
		c.hears("CDS +a:4", "EDS +a:2")
	})
}

func TestAClusterIsFollowedByTheEndpointsThatItHoldsIfItRefusedTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, eds, "a", 1))
		c := w.client("edge-1")
		defer c.close()
		c.refuse = func(typeURL, _ string, n uint32) bool { return typeURL == eds && n == 2 }
		c.ask(cds)
		c.ask(eds, "a")
		c.hears("CDS +a:1", "EDS +a:1")
		w.Publish([]resource.Resource{res(t, cds, "a", 1), res(t, eds, "a", 2)})
		c.hears("EDS +a:2")
		w.Publish([]resource.Resource{res(t, cds, "a", 2), res(t, eds, "a", 2)})
		c.hears("CDS +a:2", "EDS +a:1")
		if p := w.proxy("edge-1"); len(p.Nacks) != 1 || p.NackCount != 1 || !p.Holds(map[resource.Ref]string{ref(eds, "a"): version(t, res(t, eds, "a", 1))}) {
			t.Errorf("%+v", p)
		}
	})
}

func TestABadResourceIsRefusedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, rds, "a", 1), res(t, rds, "b", 1), res(t, rds, "c", 1))
		c := w.client("edge-1")
		defer c.close()
		c.refuse = func(_, name string, n uint32) bool { return name == "b" && n == 1 }
		c.ask(rds, "a", "b", "c")
		c.hears("RDS +a:1", "RDS +b:1", "RDS +c:1")
		p := w.proxy("edge-1")
		if len(p.Nacks) != 1 || p.NackCount != 1 || p.Nacks[0].Message != "b:1 is bad" || strings.Join(p.Nacks[0].Names, " ") != "b" || p.Nacks[0].Version != version(t, res(t, rds, "b", 1)) {
			t.Errorf("refusals: %d, %+v", p.NackCount, p.Nacks)
		}
		w.Publish([]resource.Resource{res(t, rds, "a", 2), res(t, rds, "b", 1), res(t, rds, "c", 1)})
		c.hears("RDS +a:2") // the refused version is not sent again
		if p := w.proxy("edge-1"); len(p.Nacks) != 1 || p.Holds(map[resource.Ref]string{ref(rds, "b"): ""}) {
			t.Errorf("the refusal is not settled by others' acknowledgements: %+v", p.Nacks)
		}
		w.Publish([]resource.Resource{res(t, rds, "a", 2), res(t, rds, "b", 2), res(t, rds, "c", 1)})
		c.hears("RDS +b:2")
		if p := w.proxy("edge-1"); len(p.Nacks) != 0 || p.NackCount != 1 {
			t.Errorf("refusals after the acknowledgement: %d, %+v", p.NackCount, p.Nacks)
		}
		if strings.Count(w.logs.String(), "proxy refused a response") != 1 || strings.Count(w.logs.String(), "proxy connected") != 1 {
			t.Errorf("log:\n%s", w.logs)
		}
	})
}

func TestARefusedResponseOfSeveralIsSentAgainOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, cds, "a", 1), res(t, cds, "b", 1), res(t, cds, "c", 1))
		c := w.client("edge-1")
		defer c.close()
		c.refuse = func(_, name string, n uint32) bool { return name == "b" }
		c.ask(cds)
		c.hears("CDS +a:1 +b:1 +c:1", "CDS +a:1", "CDS +b:1", "CDS +c:1")
		if p := w.proxy("edge-1"); p.NackCount != 2 || len(p.Nacks) != 1 || strings.Join(p.Nacks[0].Names, " ") != "b" ||
			!p.Holds(map[resource.Ref]string{ref(cds, "a"): "", ref(cds, "c"): ""}) {
			t.Errorf("%+v", p)
		}
		<-w.Changed()
		w.Publish([]resource.Resource{res(t, cds, "a", 1), res(t, cds, "c", 1)}) // the bad one is taken back
		c.hears()
		<-w.Changed() // nothing was sent, but the refusal is settled
		if p := w.proxy("edge-1"); len(p.Nacks) != 0 {
			t.Errorf("refusals: %+v", p.Nacks)
		}
	})
}

func TestAnAnswerCountsForExactlyItsResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, res(t, eds, "a", 1), res(t, eds, "b", 1))
		c := w.client("edge-1")
		defer c.close()
		c.hold[eds] = true
		c.ask(eds, "a", "b")
		c.hears("EDS +a:1", "EDS +b:1")
		holds := func(name string) bool {
			synctest.Wait()
			return w.proxy("edge-1").Holds(map[resource.Ref]string{ref(eds, name): ""})
		}
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: eds, ResponseNonce: "99"})
		if holds("a") || holds("b") {
			t.Error("an unknown nonce acknowledged something")
		}
		c.send(c.kept[1])
		if holds("a") || !holds("b") {
			t.Error("the second response's nonce acknowledges exactly the second")
		}
		c.unsubscribe(eds, "a")
		c.send(c.kept[0]) // late
		if holds("a") {
			t.Error("a late answer brought back what is no longer subscribed")
		}
		c.kept = nil
		c.hold[eds] = false
		c.ask(eds, "b") // subscribed again without having been dropped: the protocol wants an answer
		c.hears("EDS +b:1")
		c.unsubscribe(eds, "b")
		if holds("b") {
			t.Error("an unsubscribed name still counts")
		}
		w.Publish([]resource.Resource{res(t, eds, "a", 2), res(t, eds, "b", 2)})
		c.hears()
	})
}

// There and back before the proxy has answered: that it once acknowledged what is
// published again says nothing, because it hears of the other version first.
func TestWhatIsOnItsWayIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, back := res(t, rds, "web", 2), res(t, rds, "web", 1)
		w := start(t, back)
		c := w.client("edge-1")
		defer c.close()
		c.ask(rds, "web")
		c.hears("RDS +web:1")
		holds := func() bool {
			synctest.Wait()
			return w.proxy("edge-1").Holds(map[resource.Ref]string{ref(rds, "web"): version(t, back)})
		}
		if !holds() {
			t.Error("an acknowledged version is not held")
		}
		c.hold[rds] = true
		w.Publish([]resource.Resource{there})
		c.hears("RDS +web:2")
		w.Publish([]resource.Resource{back})
		c.hears()
		if holds() {
			t.Error("a version counts as held while another is on its way")
		}
		c.release(rds)
		c.hears("RDS +web:1")
		if !holds() {
			t.Error("it is not held in the end")
		}
	})
}
