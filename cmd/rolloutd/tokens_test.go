package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// shown is what rolloutd showed last to each who is asked with a token.
type shown struct {
	mu   sync.Mutex
	last map[string]string
}

func (s *shown) note(who string, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[who] = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") + r.Header.Get("X-Consul-Token")
}

func (s *shown) to(who string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[who]
}

// everybody answers as Consul, as Prometheus and as one of the instances.
func everybody(t *testing.T, s *shown, instances *atomic.Int32) *httptest.Server {
	gate := drain.New(drain.Options{})
	var index atomic.Uint64
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("X-Consul-Index", fmt.Sprint(index.Add(1)))
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/v1/health/service/chat", func(w http.ResponseWriter, r *http.Request) {
		s.note("discovery", r)
		if r.FormValue("index") != "" {
			select {
			case <-time.After(200 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		all := []any{}
		for i := range instances.Load() {
			service := map[string]any{"ID": fmt.Sprintf("b%d", i), "Service": "chat", "Tags": []string{"blue"}, "Address": "127.0.0.1", "Port": 2000 + i}
			if i == 0 {
				service["Meta"] = map[string]string{"drain": server.URL}
			}
			all = append(all, map[string]any{"Node": map[string]any{"Node": "n1", "Address": "127.0.0.1"}, "Service": service, "Checks": []any{}})
		}
		answer(w, all)
	})
	mux.HandleFunc("/v1/kv/", func(w http.ResponseWriter, r *http.Request) {
		s.note("state", r)
		w.WriteHeader(http.StatusNotFound)
	})
	mux.HandleFunc("/v1/txn", func(w http.ResponseWriter, r *http.Request) {
		s.note("state", r)
		answer(w, map[string]any{"Results": []any{map[string]any{"KV": map[string]any{"ModifyIndex": index.Add(1)}}}})
	})
	mux.HandleFunc("/api/v1/", func(w http.ResponseWriter, r *http.Request) {
		s.note("prometheus", r)
		answer(w, map[string]any{"status": "success", "data": map[string]any{"resultType": "scalar", "result": []any{1, "1"}}})
	})
	mux.HandleFunc("/drain", func(w http.ResponseWriter, r *http.Request) {
		s.note("drain", r)
		gate.Endpoint().ServeHTTP(w, r)
	})
	return server
}

// Each token is replaced in its file while rolloutd runs, and is shown, or demanded, from
// then on. A file that is empty for a moment changes nothing.
func TestTokensAreReplacedInTheirFiles(t *testing.T) {
	seen := &shown{last: map[string]string{}}
	var instances atomic.Int32
	server := everybody(t, seen, &instances)
	p := newProgram(t, 0)
	all := []string{"discovery", "drain", "prometheus"}
	replace := func(token string) {
		for _, who := range append(all, "api", "state") {
			p.write(who+".token", token)
		}
	}
	replace("one\n")
	p.configure(fmt.Sprintf(`  - name: chat
    policy: {gates: [{name: up, query: "1", below: 2}]}
prometheus: {address: %q, token_file: prometheus.token}
drain: {token_file: drain.token}
`, server.URL))
	p.edit("discovery: {file: instances.yaml}", fmt.Sprintf("discovery: {consul: {address: %q, token_file: discovery.token}}", server.URL))
	p.edit("state: {file: state}", fmt.Sprintf("state: {consul: {address: %q, token_file: state.token}}", server.URL))
	p.edit("api: {listen: "+strings.TrimPrefix(p.base, "http://")+"}", "api: {listen: "+strings.TrimPrefix(p.base, "http://")+", token_file: api.token}")
	instances.Add(1)
	p.launch()
	shows := func(token string) {
		t.Helper()
		p.until("everybody is shown "+token, func() bool {
			if code, _ := p.get("/v1/status", token); code != http.StatusOK {
				return false
			}
			p.hup <- nil // reads the queries of the gates again, too
			if seen.to("drain") != token {
				p.get("/v1/services/chat/plan?target=green", token) // asks the instances
			}
			for _, who := range all {
				if seen.to(who) != token {
					return false
				}
			}
			if seen.to("state") != token {
				instances.Add(1) // has a state stored
			}
			return seen.to("state") == token
		})
	}
	shows("one")
	replace("two\n")
	shows("two")
	if code, _ := p.get("/v1/status", "one"); code != http.StatusUnauthorized {
		t.Errorf("the token of before is answered with %d", code)
	}
	replace("")
	p.until("it says so", func() bool { return strings.Contains(p.said.String(), "the token from before is used") })
	if code, _ := p.get("/v1/status", "two"); code != http.StatusOK {
		t.Errorf("with an empty file the token is answered with %d", code)
	}
	replace("three\n")
	shows("three")
}
