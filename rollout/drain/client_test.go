//go:build go1.26

package drain

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

func newClient(t *testing.T, token string) *contract.Client {
	c := contract.NewClient(token)
	t.Cleanup(c.Close)
	return c
}

func TestClientAndGate(t *testing.T) {
	g := New(Options{Token: "t", Limit: 7})
	srv := httptest.NewServer(g.Endpoint())
	defer srv.Close()
	c := newClient(t, "t")
	if s, err := c.Order(t.Context(), srv.URL+"/", contract.Order{Rollout: "r", Epoch: 2, Step: 3, Ceiling: new(0), OverMS: 10}); err != nil || s.State != contract.Drained || s.Step != 3 || *s.Ceiling != 0 {
		t.Errorf("order: %+v, %v", s, err)
	}
	_, err := c.Order(t.Context(), srv.URL, contract.Order{Rollout: "r", Epoch: 1, Step: 9})
	if r, ok := errors.AsType[*contract.Refused](err); !ok || r.Code != http.StatusConflict || !strings.Contains(r.Text, "older") {
		t.Errorf("older order: %v, want it refused with 409", err)
	}
	if s, err := c.Release(t.Context(), srv.URL, contract.Release{Rollout: "r", Epoch: 2}); err != nil || s.State != contract.Serving {
		t.Errorf("release: %+v, %v", s, err)
	}
	if s, err := c.Status(t.Context(), srv.URL); err != nil || s.Limit != 7 || s.Epoch != 2 {
		t.Errorf("status: %+v, %v", s, err)
	}
	_, err = newClient(t, "x").Status(t.Context(), srv.URL)
	if r, ok := errors.AsType[*contract.Refused](err); !ok || r.Code != http.StatusUnauthorized {
		t.Errorf("wrong token: %v, want 401", err)
	}
}
