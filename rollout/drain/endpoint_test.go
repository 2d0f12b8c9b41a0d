//go:build go1.26

package drain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// ask sends one request to the endpoint, from peer if it is not empty.
func ask(g *Gate, method, path, token, peer, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if peer != "" {
		r.RemoteAddr = peer
	}
	w := httptest.NewRecorder()
	g.Endpoint().ServeHTTP(w, r)
	return w
}

const goodOrder = `{"rollout":"r","epoch":3,"step":4,"ceiling":2,"over_ms":3000,"start_ms":140}`

func TestEndpointSpeaksTheContract(t *testing.T) {
	g := New(Options{Token: "t", Limit: 9})
	boot := g.Status().Boot
	if other := New(Options{}).Status().Boot; len(boot) < 16 || len(boot) > contract.MaxBoot || other == boot {
		t.Errorf("boot is %q, and another process's %q", boot, other)
	}
	for range 5 {
		_, _ = g.Admit(func() {})
	}
	for _, tc := range []struct{ method, body, want string }{
		{"GET", "", `{"state":"serving",BOOT,"active":5,"accepted":5,"evicted":0,"returned":null,"limit":9,"ceiling":null,"epoch":0,"step":0,PEERS}`},
		{"PUT", goodOrder, `{"state":"draining",BOOT,"active":5,"accepted":5,"evicted":0,"returned":null,"limit":9,"ceiling":2,"rollout":"r","epoch":3,"step":4,PEERS,"levels":{"rollout":{"state":"draining","active":5,"ceiling":2,"rollout":"r","epoch":3,"step":4}}}`},
		{"DELETE", `{"rollout":"r","epoch":3}`, `{"state":"serving",BOOT,"active":5,"accepted":5,"evicted":0,"returned":null,"limit":9,"ceiling":null,"rollout":"r","epoch":3,"step":0,PEERS,"levels":{"rollout":{"state":"serving","active":5,"ceiling":null,"rollout":"r","epoch":3,"step":0}}}`},
	} {
		want := strings.NewReplacer("BOOT", `"boot":"`+boot+`","can":["from","levels"]`, "PEERS", `"peers":{"other":{"held":5,"accepted":5}}`).Replace(tc.want)
		w := ask(g, tc.method, "/drain", "t", "", tc.body)
		if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("%s: %d %s, want 200 %s", tc.method, w.Code, w.Body, want)
		}
	}
}

func TestEndpointAgainstHostileInput(t *testing.T) {
	for name, tc := range map[string]struct {
		method, path, token, body string
		code                      int
	}{
		"no token":           {"GET", "/drain", "", "", 401},
		"wrong token":        {"PUT", "/drain", "x", goodOrder, 401},
		"another path":       {"GET", "/", "t", "", 404},
		"another method":     {"POST", "/drain", "t", goodOrder, 405},
		"older epoch":        {"PUT", "/drain", "t", `{"rollout":"r","epoch":1,"step":9}`, 409},
		"older step":         {"PUT", "/drain", "t", `{"rollout":"r","epoch":2,"step":1}`, 409},
		"older release":      {"DELETE", "/drain", "t", `{"rollout":"r","epoch":1}`, 409},
		"negative ceiling":   {"PUT", "/drain", "t", `{"rollout":"r","epoch":3,"step":4,"ceiling":-1}`, 400},
		"fractional ceiling": {"PUT", "/drain", "t", `{"rollout":"r","epoch":3,"step":4,"ceiling":1.5}`, 400},
		"huge ceiling":       {"PUT", "/drain", "t", `{"rollout":"r","epoch":3,"step":4,"ceiling":99999999999999999999}`, 400},
		"negative over_ms":   {"PUT", "/drain", "t", `{"rollout":"r","epoch":3,"step":4,"over_ms":-1}`, 400},
		"over_ms of a year":  {"PUT", "/drain", "t", `{"rollout":"r","epoch":3,"step":4,"over_ms":31536000000}`, 400},
		"negative start_ms":  {"PUT", "/drain", "t", `{"rollout":"r","epoch":3,"step":4,"start_ms":-1}`, 400},
		"epoch 0":            {"PUT", "/drain", "t", `{"rollout":"r","epoch":0,"step":4}`, 400},
		"negative epoch":     {"PUT", "/drain", "t", `{"rollout":"r","epoch":-3,"step":4}`, 400},
		"unknown field":      {"PUT", "/drain", "t", `{"rollout":"r","epoch":3,"step":4,"celing":0}`, 400},
		"two orders":         {"PUT", "/drain", "t", goodOrder + goodOrder, 400},
		"null":               {"PUT", "/drain", "t", `null`, 400},
		"no body":            {"PUT", "/drain", "t", ``, 400},
		"no JSON":            {"DELETE", "/drain", "t", `<html>`, 400},
		"10 MB":              {"PUT", "/drain", "t", `{"rollout":"` + strings.Repeat("x", 10<<20) + `"}`, 413},
		"10 MB of blanks":    {"PUT", "/drain", "t", goodOrder + strings.Repeat(" ", 10<<20), 413},
	} {
		g := New(Options{Token: "t"})
		_, _ = g.Admit(func() {})
		_, _ = g.order(contract.Order{Rollout: "r", Epoch: 2, Step: 2})
		w := ask(g, tc.method, tc.path, tc.token, "", tc.body)
		var said struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.Error == "" || w.Code != tc.code {
			t.Errorf("%s: %d %.200s, want %d and an error", name, w.Code, w.Body, tc.code)
		}
		if (w.Code == 405) != (w.Header().Get("Allow") != "") {
			t.Errorf("%s: Allow is %q", name, w.Header().Get("Allow"))
		}
		if s := g.Status(); s.Epoch != 2 || s.Step != 2 || s.Active != 1 || s.State != contract.Draining {
			t.Errorf("%s changed the status to %+v", name, s)
		}
	}
}

func TestWithoutATokenOnlyLoopback(t *testing.T) {
	g := New(Options{})
	for peer, code := range map[string]int{
		"127.0.0.1:5": 200, "127.8.0.1:5": 200, "[::1]:5": 200, "[::ffff:127.0.0.1]:5": 200,
		"10.0.0.5:5": 403, "[fe80::1%eth0]:5": 403, "@": 403, "127.0.0.1.evil:5": 403,
	} {
		if w := ask(g, "GET", "/drain", "", peer, ""); w.Code != code {
			t.Errorf("from %s: %d, want %d", peer, w.Code, code)
		}
	}
	r := httptest.NewRequest("GET", "/drain", nil)
	r.RemoteAddr = "127.0.0.1:5"
	r.Header.Set("X-Forwarded-For", "10.0.0.5")
	w := httptest.NewRecorder()
	if g.Endpoint().ServeHTTP(w, r); w.Code != 403 {
		t.Errorf("through a proxy on this machine: %d, want 403", w.Code)
	}
}

// A real server and 10 MB on a real connection: an answer, and the next request works.
func TestEndpointCutsOffALargeBody(t *testing.T) {
	srv := httptest.NewServer(New(Options{Token: "t"}).Endpoint())
	defer srv.Close()
	c := contract.NewClient("t")
	defer c.Close()
	r, err := http.NewRequest(http.MethodPut, srv.URL+"/drain", bytes.NewReader(make([]byte, 10<<20)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer t")
	if res, err := srv.Client().Do(r); err == nil { // or the connection is reset while sending
		_ = res.Body.Close()
		if res.StatusCode < 400 {
			t.Errorf("10 MB got %d", res.StatusCode)
		}
	}
	if s, err := c.Status(t.Context(), srv.URL); err != nil || s.State != contract.Serving {
		t.Errorf("status afterwards: %+v, %v", s, err)
	}
}

// 1,000 orders at once, in any sequence: the newest stands, and nothing was
// closed but what the orders allow.
func TestParallelOrders(t *testing.T) {
	g := New(Options{Token: "t"})
	for range 500 {
		_, _ = g.Admit(func() {})
	}
	steps := rand.Perm(1000)
	var wg sync.WaitGroup
	for _, step := range steps {
		wg.Go(func() {
			w := ask(g, "PUT", "/drain", "t", "", fmt.Sprintf(`{"rollout":"r","epoch":1,"step":%d,"ceiling":400,"over_ms":86400000,"start_ms":3600000}`, step))
			if w.Code != 200 && w.Code != 409 {
				t.Errorf("step %d: %d %s", step, w.Code, w.Body)
			}
		})
	}
	wg.Wait()
	if s := g.Status(); s.Step != 999 || s.Active != 500 || *s.Ceiling != 400 {
		t.Errorf("status %+v, want step 999 and 500 active", s)
	}
	g.mu.Lock()
	left := g.levels[0].funnel.left
	g.mu.Unlock()
	if left != 100 {
		t.Errorf("%d closes to come, want 100", left)
	}
	_, _ = g.release(contract.Release{Epoch: 1}) // stops the timer
}

// Whatever the body, the answer is the contract's, and an order that is taken
// keeps its rules.
func FuzzOrder(f *testing.F) {
	f.Add(goodOrder)
	f.Add(`{"rollout":"r","epoch":1,"step":0,"ceiling":null,"over_ms":0,"start_ms":0}`)
	f.Add(`{"rollout":"r","epoch":1,"ceiling":-1}`)
	f.Add(`{"rollout":"r","epoch":1,"level":"edge","from":["edge-1","10.0.0.7"]}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, body string) {
		g := New(Options{Token: "t"})
		_, _ = g.Admit(func() {})
		w := ask(g, "PUT", "/drain", "t", "", body)
		if w.Code == 200 {
			var o contract.Order
			_ = json.Unmarshal([]byte(body), &o)
			var s contract.Status
			err := json.Unmarshal(w.Body.Bytes(), &s)
			if err == nil {
				err = s.Check()
			}
			l := s.LevelOf(o.LevelName())
			if err != nil || l.State == contract.Serving || l.Epoch == 0 || l.Ceiling != nil && *l.Ceiling < 0 || (o.From == nil) != (s.State != contract.Serving) {
				t.Fatalf("%q was taken: %s, %v", body, w.Body, err)
			}
			_, _ = g.release(contract.Release{Epoch: l.Epoch, Level: o.Level})
			return
		}
		if s := g.Status(); w.Code != 400 && w.Code != 413 || s.State != contract.Serving || s.Epoch != 0 {
			t.Fatalf("%q: %d %s, status %+v", body, w.Code, w.Body, s)
		}
	})
}
