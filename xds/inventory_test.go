package xds

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// What proxies hold as it is published costs each of them a pointer, and what one of them says changes
// nothing for the others.
func TestProxiesShareWhatIsSettled(t *testing.T) {
	s := New(Options{Logger: slog.New(slog.DiscardHandler)})
	var set []resource.Resource
	var names []string
	for i := range 100 {
		set = append(set, load(fmt.Sprint(i), 1))
		names = append(names, set[i].Name)
	}
	if err := s.Publish(set); err != nil {
		t.Fatal(err)
	}
	var all []*holding
	for _, claims := range []map[string]string{nil, versionsOf(s)} { // one is told, one holds it already
		h := newHolding(s, &peer{node: "edge"}, set[0].Type)
		if err := h.begin(&stream{s: s, protocol: deltaProtocol{}}, claims, false); err != nil {
			t.Fatal(err)
		}
		if err := h.subscribe(true, request{subscribe: append([]string(nil), names...)}); err != nil {
			t.Fatal(err)
		}
		for h.catchUp(s.snapshot.Load()); ; {
			r := h.respond(s.snapshot.Load())
			if r == nil {
				break
			}
			h.answer(r.nonce, "", false)
		}
		all = append(all, h)
	}
	check := func(h *holding, want int) {
		t.Helper()
		own := 0
		for _, e := range h.names.byName {
			if !e.shared() || !e.named {
				own++
			}
		}
		if len(h.names.byName) != want || own > 0 {
			t.Errorf("%d names, want %d; %d of them are a proxy's own", len(h.names.byName), want, own)
		}
	}
	check(all[0], 100)
	check(all[1], 100)
	if err := all[0].subscribe(false, request{unsubscribe: names[:40]}); err != nil {
		t.Fatal(err)
	}
	all[1].disown()
	check(all[0], 60)
	check(all[1], 100)
}

func versionsOf(s *Server) map[string]string {
	all := map[string]string{}
	for ref, v := range s.Versions() {
		all[ref.Name] = v
	}
	return all
}
