package drain_test

import (
	"net/http"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// What comes through net/http is known by the node that its Envoy says, and not by what
// a client says beside it.
func TestALevelOfOneNodeOverHTTP(t *testing.T) {
	i := newInstance(t, drain.Options{}, plain, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }))
	_, err := i.client.Order(t.Context(), i.base, contract.Order{Rollout: "edge-1 stops", Level: "edge-1", Epoch: 1, From: []string{"edge-1"}})
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]int{"edge-1": 503, "edge-2": 200, "": 200} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, i.srv.URL, nil)
		if node != "" {
			req.Header.Set("x-envoy-downstream-service-node", node)
		}
		res, err := i.srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want || want == 503 && res.Header.Get("Retry-After") == "" {
			t.Errorf("through %q: %d, want %d", node, res.StatusCode, want)
		}
	}
}
