package outside

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Only Prometheus's own word that a query is wrong is a fault; everything else is not
// known.
func TestParse(t *testing.T) {
	const wrong = `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:15: parse error: unexpected \")\""}`
	for name, c := range map[string]struct {
		code             int
		body             string
		fault, unchecked string
	}{
		"understood":     {200, `{"status":"success","data":{"type":"call"}}`, "", ""},
		"wrong":          {400, wrong, `Prometheus cannot parse it: 1:15: parse error: unexpected ")"`, ""},
		"another fault":  {400, `{"status":"error","errorType":"bad_data","error":"no org id"}`, "", "it answers 400"},
		"no such place":  {404, "404 page not found\n", "", "it answers 404"},
		"token refused":  {401, "Unauthorized\n", "", "it answers 401"},
		"something else": {200, "<html>hello</html>", "", "it answers 200"},
		"sick":           {503, wrong, "", "it answers 503"},
		"large":          {400, wrong + strings.Repeat(" ", mostAnswer), "", "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/prom/api/v1/parse_query" || r.FormValue("query") != "rate(errors[1m]) + 1" || r.Header.Get("Authorization") != "Bearer t" {
					t.Errorf("it is asked %s %v", r.URL, r.Header)
				}
				w.WriteHeader(c.code)
				_, _ = io.WriteString(w, c.body)
			}))
			defer srv.Close()
			g := newGates(t, Prometheus{Address: srv.URL + "/prom/", Token: "t"})
			fault, unchecked := g.Parse(t.Context(), "rate(errors[1m]) + 1")
			if fault != c.fault || (unchecked == "") != (c.unchecked == "") || !strings.Contains(unchecked, c.unchecked) {
				t.Errorf("fault %q, unchecked %q", fault, unchecked)
			}
		})
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	if fault, unchecked := newGates(t, Prometheus{Address: gone.URL}).Parse(t.Context(), "errors"); fault != "" || unchecked == "" {
		t.Errorf("of a Prometheus that is gone: fault %q, unchecked %q", fault, unchecked)
	}
	if fault, unchecked := newGates(t, Prometheus{}).Parse(t.Context(), "errors"); fault != "" || unchecked == "" {
		t.Errorf("without Prometheus: fault %q, unchecked %q", fault, unchecked)
	}
}
