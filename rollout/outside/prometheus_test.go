package outside

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// recorded are the answers of a real Prometheus, served as it does: by query.
func recorded(t *testing.T) http.Handler {
	t.Helper()
	archive, err := txtar.ParseFile("testdata/prometheus.txtar")
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string][2]string{}
	for _, f := range archive.Files {
		code, body, _ := strings.Cut(string(f.Data), "\n")
		answers[f.Name] = [2]string{code, body}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := answers[r.PostFormValue("query")]
		if !ok || r.Method != http.MethodPost || r.URL.Path != "/api/v1/query" || r.PostFormValue("timeout") != "6s" {
			t.Errorf("%s %s asks for %v", r.Method, r.URL, r.PostForm)
		}
		code, _ := strconv.Atoi(a[0])
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, a[1])
	})
}

// serve returns the gates that ask a server at a path.
func serve(t *testing.T, h http.Handler) *Gates {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return newGates(t, Prometheus{Address: srv.URL})
}

func newGates(t *testing.T, p Prometheus) *Gates {
	t.Helper()
	g, err := NewGates(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.web.close)
	return g
}

// ask asks one gate once.
func ask(t *testing.T, g *Gates, gate policy.Gate) observed.Reading {
	t.Helper()
	ctx, cancel := within(t.Context(), gate.Within())
	defer cancel()
	return g.read(ctx, "chat", gate)
}

func TestAnswersOfARealPrometheus(t *testing.T) {
	const paths = `label_replace(vector(0.5), "path", "/a", "", "") or label_replace(vector(3), "path", "/b", "", "") or label_replace(vector(0.5), "path", "/c", "", "")`
	g := serve(t, recorded(t))
	for _, c := range []struct {
		query string
		gate  policy.Gate
		want  string
	}{
		{"up", policy.Gate{Above: new(0.0)}, "open: 1 is above 0"},
		{"up", policy.Gate{Above: new(1.0)}, "closed: 1 is not above 1"},
		{"up", policy.Gate{Below: new(1.0)}, "closed: 1 is not below 1"},
		{"up * 0.031", policy.Gate{Below: new(0.01)}, "closed: 0.031 is not below 0.01"},
		{"up * 0.031", policy.Gate{Below: new(0.04)}, "open: 0.031 is below 0.04"},
		{"up * 0.031", policy.Gate{Above: new(0.01), Below: new(0.04)}, "open: 0.031 is above 0.01 and below 0.04"},
		{"up * 0.031", policy.Gate{Above: new(0.04), Below: new(1.0)}, "closed: 0.031 is not above 0.04"},
		{"up * 0.031", policy.Gate{Below: new(0.03100000001)}, "open: 0.031 is below 0.03100000001"},
		{"scalar(up)", policy.Gate{Below: new(2.0)}, "open: 1 is below 2"},
		{"vector(0) / 0", policy.Gate{Below: new(1.0)}, "closed: NaN is not below 1"},
		{"vector(0) / 0", policy.Gate{Above: new(1.0)}, "closed: NaN is not above 1"},
		{"-1 / vector(0)", policy.Gate{Below: new(1.0)}, "open: -Inf is below 1"},
		{"nothing", policy.Gate{Below: new(1.0)}, "closed: the query has no result"},
		{paths, policy.Gate{Below: new(1.0)}, `closed: 3 of {path="/b"} is not below 1`},
		{paths, policy.Gate{Below: new(4.0)}, `open: 3 of {path="/b"} is below 4`},
		{paths, policy.Gate{Above: new(0.5)}, `closed: 0.5 of {path="/a"} is not above 0.5`},
		{"up[1m]", policy.Gate{Below: new(9.0)}, "closed: the query has to answer a vector or a scalar, and does not"},
		{`"x"`, policy.Gate{Below: new(9.0)}, `closed: the answer of Prometheus cannot be read: unexpected value type "string"`},
		{"sum(", policy.Gate{Below: new(9.0)}, `closed: Prometheus cannot answer the query: invalid parameter "query": 1:5: parse error: unclosed left parenthesis`},
		{"rate(up[5m])+nofunc(1)", policy.Gate{Below: new(9.0)}, `closed: Prometheus cannot answer the query: invalid parameter "query": 1:14: parse error: unknown function with name "nofunc"`},
		{"up offset 1s", policy.Gate{Below: new(9.0)}, "closed: Prometheus answers: server error: 503: {\"status\":\"error\",\"errorType\":\"timeout\""},
		{`vector(1) + on() (label_replace(vector(1),"a","1","","") or vector(2))`, policy.Gate{Below: new(9.0)}, "closed: Prometheus cannot answer the query: found duplicate series for the match group {} on the right hand-side"},
		{"quantile(2, up)", policy.Gate{Below: new(9.0)}, "closed: +Inf is not below 9 (Prometheus warns: PromQL warning: quantile value should be between 0 and 1, got 2 (1:10))"},
	} {
		c.gate.Name, c.gate.Query = "error_rate", c.query
		r := ask(t, g, c.gate)
		if red := strings.Contains(c.want, " not ") && !strings.Contains(c.want, "NaN") && !strings.Contains(c.want, "does not"); !r.Open && r.Unanswered == red && !strings.Contains(c.want, "duplicate") {
			t.Errorf("%s: %+v", c.query, r)
		}
		if want := "gate error_rate is " + c.want; !strings.HasPrefix(r.Text, want) || r.Open != strings.HasPrefix(c.want, "open") {
			t.Errorf("%s:\ngot  %t %s\nwant %s", c.query, r.Open, r.Text, want)
		}
	}
}

// Whatever answers, a gate opens only for a value that is one.
func TestHostileAnswers(t *testing.T) {
	vector := func(sample string) string {
		return `{"status":"success","data":{"resultType":"vector","result":[` + sample + `]}}`
	}
	for name, c := range map[string]struct {
		code       int
		body, want string
	}{
		"null value":       {200, vector(`{"metric":{},"value":[1795379176.5,null]}`), "a sample without a value"},
		"short value":      {200, vector(`{"metric":{},"value":[1795379176.5]}`), "a sample without a value"},
		"no value":         {200, vector(`{"metric":{}}`), "a sample without a value"},
		"value in capital": {200, vector(`{"VALUE":[1,null]}`), "a sample without a value"},
		"null sample":      {200, vector(`null`), "a sample without a value"},
		"number":           {200, vector(`{"metric":{},"value":[1795379176.5,0.001]}`), "a sample without a value"},
		"no number":        {200, vector(`{"metric":{},"value":[1795379176.5,"many"]}`), "cannot be read"},
		"second is null":   {200, vector(`{"value":[1,"0"]},{"value":[1,null]}`), "a sample without a value"},
		"histogram":        {200, vector(`{"metric":{},"histogram":[1,{"count":"1","sum":"2","buckets":[]}]}`), "the query answers with histograms"},
		"null histogram":   {200, vector(`{"metric":{},"histogram":null}`), "cannot be read"},
		"null result":      {200, `{"status":"success","data":{"resultType":"vector","result":null}}`, "the query has no result"},
		"no result":        {200, `{"status":"success","data":{"resultType":"vector"}}`, "cannot be read"},
		"null scalar":      {200, `{"status":"success","data":{"resultType":"scalar","result":null}}`, "a sample without a value"},
		"null data":        {200, `{"status":"success","data":null}`, "has to answer a vector or a scalar"},
		"no data":          {200, `{"status":"success"}`, "has to answer a vector or a scalar"},
		"nothing":          {200, ``, "cannot be read"},
		"HTML":             {200, `<html>`, "cannot be read"},
		"a list":           {200, `[]`, "cannot be read"},
		"deep":             {200, strings.Repeat("[", 1<<19), "cannot be read"},
		"huge":             {200, vector(`{"metric":{"a":"` + strings.Repeat("x", mostAnswer) + `"},"value":[1,"0"]}`), "the answer is larger than 1048576 bytes; ask for fewer series"},
		"error with 200":   {200, `{"status":"error","errorType":"internal","error":"out\nof \u001b[31mmemory"}`, "Prometheus answers: out of [31mmemory"},
		"huge error":       {400, `{"status":"error","errorType":"bad_data","error":"` + strings.Repeat("é", 9000) + `"}`, "é…"},
		"redirect":         {302, ``, "bad response code 302"},
		"not allowed":      {401, ``, "client error: 401"},
		"gone":             {503, `<html>`, "server error: 503"},
		"no body at 503":   {503, ``, "server error: 503"},
		"success with 422": {422, vector(`{"metric":{},"value":[1,"0"]}`), "inconsistent body for response code"},
		"no content":       {204, ``, "cannot be read"},
	} {
		g := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(c.code)
			_, _ = io.WriteString(w, c.body)
		}))
		r := ask(t, g, policy.Gate{Name: "errors", Query: "up", Below: new(1.0)})
		if r.Open || !r.Unanswered || !strings.HasPrefix(r.Text, "gate errors is closed: ") || !strings.Contains(r.Text, c.want) || len([]rune(r.Text)) > 400 || strings.ContainsAny(r.Text, "\n\x1b") {
			t.Errorf("%s: %t %q, want %q", name, r.Open, r.Text, c.want)
		}
	}
}

func TestPrometheusThatDoesNotAnswer(t *testing.T) {
	ended := make(chan struct{})
	slow := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"status":`)
		_ = http.NewResponseController(w).Flush()
		<-ended
	}))
	t.Cleanup(func() { close(ended) }) // before the server is closed
	gone := httptest.NewServer(nil)
	gone.Close()
	gate := policy.Gate{Name: "errors", Query: "up", Below: new(1.0), Timeout: units.Duration(50 * time.Millisecond)}
	for want, g := range map[string]*Gates{
		"Prometheus gives no answer within 50ms":             slow,
		"connect: connection refused":                        newGates(t, Prometheus{Address: gone.URL}),
		"the configuration does not say where that is":       newGates(t, Prometheus{}),
		"Prometheus does not answer: unsupported protocol s": newGates(t, Prometheus{Address: "ftp://x"}),
	} {
		if r := ask(t, g, gate); r.Open || !r.Unanswered || !strings.Contains(r.Text, want) {
			t.Errorf("%t %q, want %q", r.Open, r.Text, want)
		}
	}
	if _, err := NewGates(Prometheus{Address: "http://[::1"}); err == nil || !strings.HasPrefix(err.Error(), "prometheus.address: ") {
		t.Errorf("no URL: %v", err)
	}
}

// The token is for one address, which may have a path in front of the API's.
func TestPrometheusTokenAndPath(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("the redirect was followed: %v", r.Header) }))
	defer other.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" || r.URL.Path != "/prom/api/v1/query" {
			t.Errorf("asked %s with %q", r.URL, r.Header)
		}
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	g := newGates(t, Prometheus{Address: srv.URL + "/prom/", Token: "secret"})
	if r := ask(t, g, policy.Gate{Name: "a", Query: "up", Below: new(1.0)}); r.Open || !strings.Contains(r.Text, "307") {
		t.Errorf("%+v", r)
	}
}

// answer plays a body to the client library without a network.
type answer string

func (a answer) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(string(a)))}, nil
}

// Whatever the body, nothing panics, and a gate opens only where a plain reading
// of the body finds values and all of them keep the bound.
func FuzzAnswer(f *testing.F) {
	archive, err := txtar.ParseFile("testdata/prometheus.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		_, body, _ := strings.Cut(string(file.Data), "\n")
		f.Add(body)
	}
	f.Add(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,null]},{"value":[2,"0"]}]}}`)
	f.Fuzz(func(t *testing.T, body string) {
		g, err := Prometheus{Address: "http://prometheus"}.connect(answer(body))
		if err != nil {
			t.Fatal(err)
		}
		r := query(context.Background(), g, policy.Gate{Query: "up", Below: new(0.5)})
		open, said := r.Open, r.Text
		if said == "" || !strings.Contains(said, "is below 0.5") && open || open && r.Unanswered {
			t.Fatalf("%t %q", open, said)
		}
		if open && !plainlyBelow(body, 0.5) {
			t.Fatalf("open for %s", body)
		}
	})
}

// plainlyBelow reads an answer in another way than the code.
func plainlyBelow(body string, bound float64) bool {
	var a struct{ Data struct{ Result any } }
	if json.Unmarshal([]byte(body), &a) != nil {
		return false
	}
	below := func(pair any) bool {
		p, ok := pair.([]any)
		if !ok || len(p) != 2 {
			return false
		}
		v, err := strconv.ParseFloat(fmt.Sprint(p[1]), 64)
		return err == nil && v < bound
	}
	all, _ := a.Data.Result.([]any)
	if below(a.Data.Result) {
		return true
	}
	for _, s := range all {
		sample, _ := s.(map[string]any)
		found := false
		for key, value := range sample {
			found = found || strings.EqualFold(key, "value") && below(value)
		}
		if !found {
			return false
		}
	}
	return len(all) > 0
}
