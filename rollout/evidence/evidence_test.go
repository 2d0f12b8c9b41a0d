package evidence

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// What contradicts, or is silent, proves nothing, whatever the proxies hold; an order that
// is remembered does.
func TestOnlyOrdersThatAgreeProve(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	said := map[string]contract.Status{
		"serves": {State: contract.Serving, Rollout: "chat-7", Epoch: 7},
		"drains": {State: contract.Draining, Rollout: "chat-7", Epoch: 7},
		"quiet":  {State: contract.Serving},
	}
	for _, c := range []struct {
		blue, green string
		live        discovery.Colour
	}{
		{"drains", "serves", discovery.Green},
		{"serves", "drains", discovery.Blue},
		{"quiet", "drains", discovery.Blue},
		{"drains", "drains", ""},
		{"serves", "serves", ""},
		{"silent", "serves", ""},
		{"drains", "silent", ""},
	} {
		seen := observed.Seen{
			Instances: map[discovery.InstanceID]observed.Sighting{}, Watching: now,
			Witnesses: map[discovery.Colour]observed.Witness{discovery.Blue: {At: now, Active: 9}, discovery.Green: {At: now}},
		}
		of := map[discovery.Colour][]Instance{}
		for colour, what := range map[discovery.Colour]string{discovery.Blue: c.blue, discovery.Green: c.green} {
			id := discovery.InstanceID(colour)
			of[colour] = []Instance{{ID: id, Endpoint: true}}
			if status, heard := said[what]; heard {
				seen.Instances[id] = observed.Sighting{At: now, Status: status}
			}
		}
		e := Gather(of, seen, now)
		if v := e.Judge(discovery.Blue, now, now); v.Live != c.live || v.Why == "" {
			t.Errorf("blue %s, green %s: %q is live (%s), want %q", c.blue, c.green, v.Live, v.Why, c.live)
		}
		if silent := c.blue == "silent" || c.green == "silent"; silent != (e.Next() > 8) {
			t.Errorf("blue %s, green %s: the next epoch is %d", c.blue, c.green, e.Next())
		}
	}
}
