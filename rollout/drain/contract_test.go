//go:build go1.26

package drain_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// boot is the one word of a status that is random.
var boot = regexp.MustCompile(`"boot":"[A-Z2-7]{26}"`)

var update = flag.Bool("update", false, "rewrite the golden file in testdata")

// TestContract holds the words of the drain contract, byte for byte: other
// languages have implemented them.
func TestContract(t *testing.T) {
	var out bytes.Buffer
	say := func(what string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n\t%s\n", what, text)
	}
	say("a status", contract.Status{State: contract.Serving})
	say("a status with every word", contract.Status{State: contract.Draining, Boot: "HQ7PZNRV2XJD5LWK3TBYF6CMGA", Active: 5, Requests: 2, Lingering: 1, Accepted: 20, Evicted: 3, Returned: new(uint64(5)), Ticketed: new(uint64(4)), Refused: 2,
		HandshakeMS: new(12), GraceMS: new(int64(90_000)), Limit: 100, Ceiling: new(7), Rollout: "chat-4", Epoch: 4, Step: 9,
		Peers: map[string]contract.Peer{"10.0.0.7": {Held: 6, Accepted: 15, Refused: 2}, "2001:db8::7": {Held: 1, Accepted: 4}, contract.OtherPeers: {Held: 1, Accepted: 1}}})
	say("a status with levels", contract.Status{State: contract.Serving, Can: []contract.Ability{contract.CanFrom, contract.CanLevels},
		Levels: map[string]contract.Level{"edge-1": {State: contract.Draining, Active: 2, Ceiling: new(1), Rollout: "edge-1 stops", Epoch: 2, Step: 1, From: []string{"edge-1"}}}})
	say("an order to hold", contract.Order{Rollout: "chat-4", Epoch: 4})
	say("an order with every word", contract.Order{Rollout: "chat-4", Epoch: 4, Step: 9, Ceiling: new(7), OverMS: 3000, StartMS: 15, Pick: contract.Oldest})
	say("a status with asks", contract.Status{State: contract.Draining, Can: []contract.Ability{contract.CanAsk, contract.CanFrom, contract.CanLevels}, Active: 5, Asked: 3, Accepted: 9, Evicted: 7, Left: 3, Overstayed: 1})
	say("an order to ask first", contract.Order{Rollout: "chat-4", Epoch: 4, Step: 9, Ceiling: new(2), OverMS: 3000, StartMS: 15, NoticeMS: 30000})
	say("an order of another level", contract.Order{Rollout: "edge-1 stops", Epoch: 2, Step: 1, Ceiling: new(1), Level: "edge-1", From: []string{"edge-1"}})
	say("a release", contract.Release{Rollout: "chat-4", Epoch: 4})
	say("a release of another level", contract.Release{Rollout: "edge-1 stops", Epoch: 2, Level: "edge-1"})

	gate := drain.New(drain.Options{Token: "secret", Limit: 100, CountsReturns: true})
	endpoint := gate.Endpoint()
	for range 3 {
		if _, err := gate.AdmitFrom(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4000}, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ method, path, body, token string }{
		{"GET", "/drain", "", "secret"},
		{"GET", "/drain", "", "wrong"},
		{"GET", "/nothing", "", "secret"},
		{"POST", "/drain", "{}", "secret"},
		{"PUT", "/drain", "", "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"step":1,"ceiling":3,"over_ms":1,"speed":1}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1}{}`, "secret"},
		{"PUT", "/drain", `{"epoch":1}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1"}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"ceiling":-1}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"over_ms":86400001}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"start_ms":-1}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"order":"smallest"}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"step":2,"ceiling":3,"over_ms":3000,"start_ms":15,"order":"oldest"}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"step":2,"ceiling":3,"over_ms":3000,"start_ms":15,"order":"oldest"}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"step":1,"ceiling":null,"over_ms":3000,"start_ms":0}`, "secret"},
		{"DELETE", "/drain", `{"rollout":"chat-1","epoch":0}`, "secret"},
		{"DELETE", "/drain", `{"rollout":"chat-1","epoch":1}`, "secret"},
		{"PUT", "/drain", `{"rollout":"chat-1","epoch":1,"step":3,"ceiling":null}`, "secret"},
		{"PUT", "/drain", `{"rollout":"edge-1 stops","epoch":1,"step":1,"ceiling":null,"level":"edge-1","from":["edge-1"]}`, "secret"},
		{"PUT", "/drain", `{"rollout":"edge-1 stops","epoch":1,"step":2,"ceiling":null,"level":"edge-1","from":[]}`, "secret"},
		{"DELETE", "/drain", `{"rollout":"edge-1 stops","epoch":1,"level":"edge-1"}`, "secret"},
		{"GET", "/drain", "", "secret"},
	} {
		req := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		req.Header.Set("Authorization", "Bearer "+c.token)
		rec := httptest.NewRecorder()
		endpoint.ServeHTTP(rec, req)
		fmt.Fprintf(&out, "%s\n\t%d %s %s", strings.TrimSpace(fmt.Sprintf("%s %s %s", c.method, c.path, c.body)), rec.Code, rec.Header().Get("Content-Type"), rec.Body)
	}
	open := httptest.NewRecorder()
	drain.New(drain.Options{}).Endpoint().ServeHTTP(open, httptest.NewRequest(http.MethodGet, "/drain", nil))
	fmt.Fprintf(&out, "GET /drain from elsewhere, without a token\n\t%d %s", open.Code, open.Body)

	text := boot.ReplaceAll(out.Bytes(), []byte(`"boot":"ANOTHER WITH EACH START"`))

	const path = "testdata/contract.txt"
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(text, want) {
		t.Errorf("got\n%s\nwant\n%s (%v)", text, want, err)
	}
}
