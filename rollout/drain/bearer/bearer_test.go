package bearer_test

import (
	"net/http/httptest"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain/bearer"
)

func TestShown(t *testing.T) {
	for header, want := range map[string]bool{
		"Bearer secret": true, "bearer secret": true, "BEARER secret": true,
		"": false, "Bearer": false, "Bearer ": false, "Bearer secre": false, "Bearer secrets": false, "Bearer  secret": false, "Bearer Secret": false,
		"Basic secret": false, "secret": false, "Bearersecret": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		if got := bearer.Shown(r, "secret"); got != want {
			t.Errorf("%q: %t", header, got)
		}
	}
}
