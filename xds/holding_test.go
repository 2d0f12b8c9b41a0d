package xds

import (
	"log/slog"
	"testing"
)

// A name that the proxy no longer asks for, holds or is told of takes no room: a
// proxy that asks for ever new names must not fill the memory.
func TestNamesThatSayNothingAreForgotten(t *testing.T) {
	const typeURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	s := New(Options{Logger: slog.New(slog.DiscardHandler)})
	if err := s.Publish(nil); err != nil {
		t.Fatal(err)
	}
	for protocol, c := range map[string]struct {
		protocol protocol
		ask      func(h *holding, first bool, name string)
	}{
		"delta": {deltaProtocol{}, func(h *holding, first bool, name string) {
			_ = h.subscribe(first, request{subscribe: []string{name}})
			_ = h.subscribe(false, request{unsubscribe: []string{name}})
		}},
		"state of the world": {sotwProtocol{}, func(h *holding, first bool, name string) { _ = h.subscribe(first, request{names: []string{name}}) }},
	} {
		h := newHolding(s, &peer{node: "edge-1"}, typeURL)
		if err := h.begin(&stream{s: s, protocol: c.protocol}, nil, false); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			c.ask(h, i == 0, string(rune('a'+i)))
			for r := h.respond(s.snapshot.Load()); r != nil; r = h.respond(s.snapshot.Load()) {
				h.answer(r.nonce, "", false)
			}
		}
		if len(h.names.byName) > 1 {
			t.Errorf("%s: %d names are known, and one is asked for", protocol, len(h.names.byName))
		}
	}
}
