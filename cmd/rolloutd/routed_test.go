package main

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// What a proxy has acknowledged of a service's routing holds although its listener's
// other service turns, and no longer when the service itself does.
func TestRoutingOutlivesOtherChanges(t *testing.T) {
	chat := edge.Service{Name: "chat", Listener: "web"}
	ref := envoy.Route(chat)
	set := []resource.Resource{{Ref: ref}}
	to := func(green units.Share) desired.Wish {
		return desired.Wish{Weights: map[discovery.Colour]units.Share{discovery.Green: green, discovery.Blue: units.Whole - green}}
	}
	var r routings
	published := desired.Wishes{}
	publish := func(version string, next desired.Wishes) {
		r.turn(published, next, set, func(resource.Ref) (string, bool) { return version, true })
		published = next
	}
	holds := func(version string, lost time.Time) bool {
		x := xds.Client{Connected: lost.IsZero(), Lost: lost, Acknowledged: map[resource.Ref]string{ref: version}}
		return r.reached(x, chat, published["chat"])
	}
	publish("1", desired.Wishes{"chat": to(0), "feed": to(0)})
	publish("2", desired.Wishes{"chat": to(units.Whole), "feed": to(0)})
	for version, want := range map[string]bool{"1": false, "2": true, "never published": false} {
		if got := holds(version, time.Time{}); got != want {
			t.Errorf("a proxy that holds version %s has heard: %v", version, got)
		}
	}
	turned := time.Now()
	publish("3", desired.Wishes{"chat": to(units.Whole), "feed": to(units.Whole)})
	if !holds("2", time.Time{}) || !holds("3", time.Time{}) {
		t.Error("the other service's turn took back what was acknowledged")
	}
	if !holds("2", turned) || holds("2", turned.Add(-time.Hour)) {
		t.Error("a lost proxy had heard if nothing turned since it was lost")
	}
	publish("4", desired.Wishes{"chat": to(0), "feed": to(units.Whole)})
	if holds("3", time.Time{}) || holds("1", turned) || !holds("1", time.Time{}) {
		t.Error("an abort is another turn")
	}
}
