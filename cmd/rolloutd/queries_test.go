package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// parses is a Prometheus that understands every query but those with an open bracket,
// and answers nothing else. While it is away it answers 503.
func parses(t *testing.T) (address string, away *atomic.Bool) {
	away = &atomic.Bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch query := r.FormValue("query"); {
		case away.Load(), r.URL.Path != "/api/v1/parse_query":
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.Count(query, "(") != strings.Count(query, ")"):
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:9: parse error: unclosed left parenthesis"}`)
		default:
			_, _ = io.WriteString(w, `{"status":"success","data":{}}`)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, away
}

// A query that Prometheus cannot parse is a fault, with its line, at the start, at a
// reload and in the plan; a Prometheus that does not say stops nothing.
func TestQueries(t *testing.T) {
	p := newProgram(t, 3)
	prometheus, away := parses(t)
	const good = "gates: [{name: errors, query: 'sum(errors)', below: 1, at: [step]}]"
	p.edit("policy: {", "policy: {"+good+", ")
	p.edit("services:\n", "prometheus: {address: '"+prometheus+"'}\nservices:\n")
	fault := filepath.Join(p.dir, "sluice.yaml") + ":9: services[0].policy.gates[0].query: Prometheus cannot parse it: 1:9: parse error: unclosed left parenthesis"

	p.edit("sum(errors)", "sum(errors")
	p.fails(fault)

	away.Store(true)
	p.launch()
	p.until("the log says that nobody knows", func() bool { return strings.Contains(p.said.String(), "gates[0].query: not checked: ") })
	p.listen("edge-1")
	p.until("the proxy has heard everything", func() bool { return p.status("chat").Proxies.Confirmed == 1 })
	away.Store(false)
	plan, err := p.api.Plan(t.Context(), "chat", api.Promotion{Target: "green"})
	if err != nil || len(plan.Problems) != 1 || plan.Problems[0] != fault || len(plan.Gates) != 1 || plan.Gates[0].Open {
		t.Errorf("the plan: %+v, %v", plan, err)
	}
	if _, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "green"}); refusal(err) != rollout.Infeasible || !strings.Contains(err.Error(), fault) {
		t.Errorf("promote: %v", err)
	}
	if s := p.status("chat"); s.Live != discovery.Blue || s.Rollout != nil {
		t.Errorf("refused, but %+v", s.Rollout)
	}

	p.reload("reload refused")
	p.until("the log says why", func() bool { return strings.Count(p.said.String(), fault) >= 1 })
	p.edit("sum(errors", "sum(errors)")
	p.reload("service chat has a new policy, for its next rollout")
	if plan, err = p.api.Plan(t.Context(), "chat", api.Promotion{Target: "green"}); err != nil || len(plan.Problems) > 0 {
		t.Errorf("the plan: %+v, %v", plan, err)
	}
	p.stop()
}
