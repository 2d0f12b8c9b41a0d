//go:build go1.26

package conform

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// forgetful leaves words out of what it is told, or of what it says, as one does that
// says that it can and cannot.
func forgetful(h http.Handler, told, said []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut || r.Method == http.MethodDelete {
			var words map[string]json.RawMessage
			b, _ := io.ReadAll(r.Body)
			if json.Unmarshal(b, &words) == nil && words != nil {
				all := len(words)
				for _, word := range told {
					delete(words, word)
				}
				if len(words) < all {
					b, _ = json.Marshal(words)
				}
			}
			r.Body = io.NopCloser(bytes.NewReader(b))
		}
		answer := &kept{ResponseWriter: w, code: http.StatusOK}
		h.ServeHTTP(answer, r)
		var words map[string]json.RawMessage
		if b := answer.body.Bytes(); json.Unmarshal(b, &words) == nil {
			for _, word := range said {
				delete(words, word)
			}
			b, _ = json.Marshal(words)
			answer.body.Reset()
			answer.body.Write(b)
		}
		w.WriteHeader(answer.code)
		_, _ = w.Write(answer.body.Bytes())
	})
}

// kept is an answer that is not sent yet.
type kept struct {
	http.ResponseWriter
	code int
	body bytes.Buffer
}

func (k *kept) WriteHeader(code int)        { k.code = code }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }

// nameless hides from a server by which proxy its clients came.
func nameless(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header = maps.Clone(r.Header)
		r.Header.Set(contract.NodeHeader, "conform-a")
		h.ServeHTTP(w, r)
	})
}

const ticketKey = "a key of the fleet's"

// bringing has a server believe that its clients bring other tickets.
func bringing(instead func(*drain.Gate, string) string) func(*drain.Gate, http.Handler) http.Handler {
	return func(g *drain.Gate, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			brought := instead(g, ticket.Of(r))
			r = r.Clone(r.Context())
			r.URL.RawQuery = ""
			r.Header.Set(ticket.Word, brought)
			h.ServeHTTP(w, r)
		})
	}
}

func genuine(g *drain.Gate, brought string) string {
	if brought == "" {
		return ""
	}
	return g.Ticket()
}

// Each fault in what came after version 1 is named by its rule, and an instance that does
// not say that it can is checked by the rules of version 1 alone.
func TestEveryFaultOfWhatGrewIsNamed(t *testing.T) {
	for fault, tc := range map[string]struct {
		told, said []string
		behind     func(http.Handler) http.Handler
		nearer     func(*drain.Gate, http.Handler) http.Handler
		fails      string
		rules      int
	}{
		"none":                          {rules: len(Rules())},
		"version 1":                     {told: []string{"level", "from", "a-word-that-nobody-knows"}, said: []string{"can", "levels"}, rules: len(Rules()) - 4},
		"unknown words are left out":    {told: []string{"a-word-that-nobody-knows"}, fails: "unknown-word", rules: len(Rules())},
		"levels are left out":           {told: []string{"level"}, fails: "levels", rules: len(Rules())},
		"levels are not shown":          {said: []string{"levels"}, fails: "levels", rules: len(Rules())},
		"from is left out":              {told: []string{"from"}, fails: "from", rules: len(Rules())},
		"everybody came through edge 1": {behind: nameless, fails: "from", rules: len(Rules())},
		"tickets are not counted":       {said: []string{"ticketed"}, fails: "tickets", rules: len(Rules())},
		"tickets are not taken":         {nearer: bringing(func(*drain.Gate, string) string { return "" }), fails: "tickets", rules: len(Rules())},
		"whatever is brought counts":    {nearer: bringing(genuine), fails: "tickets", rules: len(Rules())},
	} {
		t.Run(fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, n := drain.New(drain.Options{Token: "t", TicketKey: ticketKey}), network{}
				n.serve(t, "instance:9100", forgetful(g.Endpoint(), tc.told, tc.said))
				front := g.Handler(http.HandlerFunc(listens))
				if tc.nearer != nil {
					front = tc.nearer(g, front)
				}
				if tc.behind != nil {
					front = tc.behind(front)
				}
				n.serve(t, "instance:9000", front)
				by, why, err := verdicts(t, t.Context(), Options{URL: endpoint, Token: "t", Connect: "ws://instance:9000/ws", Dial: n.dial})
				if failed := strings.Join(by[Fail], " "); err != nil || failed != tc.fails || len(why) != tc.rules {
					t.Errorf("%v: failed %q, want %q; %d rules, want %d: %v", err, failed, tc.fails, len(why), tc.rules, why)
				}
				time.Sleep(2 * time.Second) // the last goodbyes
			})
		})
	}
}
