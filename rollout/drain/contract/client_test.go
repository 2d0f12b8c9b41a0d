//go:build go1.26

package contract

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newClient(t *testing.T, token string) *Client {
	c := NewClient(token)
	t.Cleanup(c.Close)
	return c
}

func TestClientKnowsADeadProcess(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	_, err := newClient(t, "").Status(t.Context(), srv.URL)
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.HasPrefix(err.Error(), "drain "+srv.URL+": dial tcp") {
		t.Errorf("error %v, want a refused connection", err)
	}
}

// The largest number is how many write "no limit"; a sum of two of them must not
// become a bound.
func TestClientReadsNoLimit(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"state":"serving","active":1,"accepted":1,"evicted":0,"limit":9223372036854775807}`)
	}))
	defer srv.Close()
	if s, err := newClient(t, "").Status(t.Context(), srv.URL); err != nil || s.Limit != 0 {
		t.Errorf("limit %d, %v; want none", s.Limit, err)
	}
}

func TestClientRefusesNonsense(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"unknown state":               {`{"state":"happy","active":1,"accepted":1,"evicted":0}`, `state is "happy"`},
		"more than any process holds": {`{"state":"serving","active":922337203685477581,"accepted":9223372036854775807,"evicted":0}`, "active is 922337203685477581; no process holds more"},
		"a total beyond all":          {`{"state":"serving","active":1,"accepted":9223372036854775808,"evicted":9223372036854775808}`, "accepted is 9223372036854775808"},
		"an epoch beyond all":         {`{"state":"serving","active":1,"accepted":1,"evicted":0,"epoch":18446744073709551614}`, "epoch is 18446744073709551614"},
		"a handshake of a year":       {`{"state":"serving","active":1,"accepted":1,"evicted":0,"handshake_ms":31536000000}`, "handshake_ms is 31536000000"},
		"no counts":                   {`{"state":"serving"}`, "must have active, accepted and evicted"},
		"null counts":                 {`{"state":"serving","active":null,"accepted":1,"evicted":0}`, "must have active"},
		"negative active":             {`{"state":"serving","active":-1,"accepted":1,"evicted":0}`, "active is -1"},
		"negative evicted":            {`{"state":"serving","active":1,"accepted":1,"evicted":-1}`, "evicted"},
		"too many evicted":            {`{"state":"serving","active":1,"accepted":1,"evicted":2}`, "evicted is 2"},
		"too many returned":           {`{"state":"serving","active":1,"accepted":1,"evicted":0,"returned":2}`, "returned is 2"},
		"drained but not":             {`{"state":"drained","active":1,"accepted":1,"evicted":0}`, "drained"},
		"negative ceiling":            {`{"state":"draining","active":1,"accepted":1,"evicted":0,"ceiling":-4}`, "ceiling is -4"},
		"negative limit":              {`{"state":"draining","active":1,"accepted":1,"evicted":0,"limit":-4}`, "limit is -4"},
		"HTML":                        {`<html>`, "no drain status"},
		"nothing":                     {``, "no drain status"},
		"too large":                   {`{"state":"` + strings.Repeat("x", MaxBody) + `"}`, "larger than"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, tc.answer) }))
		_, err := newClient(t, "").Status(t.Context(), srv.URL)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
		}
		srv.Close()
	}
}

func TestClientLeavesUnknownFieldsAlone(t *testing.T) {
	s, err := parseStatus([]byte(`{"state":"draining","active":1,"accepted":3,"evicted":2,"returned":0,"ceiling":1,"epoch":4,"step":5,"new":{}}`))
	if err != nil || s.Active != 1 || s.Accepted != 3 || s.Evicted != 2 || *s.Returned != 0 || *s.Ceiling != 1 || s.Epoch != 4 || s.Step != 5 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestClientIsNotFooledByAnAnswerToAnother(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved/drain" {
			http.Redirect(w, r, "/drain", http.StatusTemporaryRedirect)
			return
		}
		_, _ = io.WriteString(w, `{"state":"draining","active":1,"accepted":1,"evicted":0,"epoch":3,"step":3}`)
	}))
	defer srv.Close()
	c := newClient(t, "")
	if _, err := c.Order(t.Context(), srv.URL, Order{Rollout: "r", Epoch: 3, Step: 4}); err == nil {
		t.Error("an answer that still names the order before was taken")
	}
	_, err := c.Status(t.Context(), srv.URL+"/moved")
	if r, ok := errors.AsType[*Refused](err); !ok || r.Code != http.StatusTemporaryRedirect {
		t.Errorf("a redirect: %v, want it refused: the token is for one address", err)
	}
}

func TestClientGivesUp(t *testing.T) {
	ended := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-ended }))
	defer srv.Close()
	defer close(ended)
	c := newClient(t, "")
	c.Timeout = 20 * time.Millisecond
	if _, err := c.Status(t.Context(), srv.URL); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 20ms") {
		t.Errorf("error %v, want no answer within 20ms", err)
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := c.Status(ctx, srv.URL); !errors.Is(err, stopped) {
		t.Errorf("error %v, want the cause", err)
	}
}

func TestWordsThatAreNotBelieved(t *testing.T) {
	for _, said := range []string{
		`"can":[""]`, `"levels":{"":{"state":"serving"}}`, `"levels":{"x":{"state":"odd"}}`, `"levels":{"x":{"state":"serving","active":-1}}`,
		`"levels":{"rollout":{"state":"draining","epoch":7}}`,
	} {
		if _, err := parseStatus([]byte(`{"state":"serving","active":1,"accepted":1,"evicted":0,` + said + `}`)); err == nil {
			t.Errorf("a status with %s is believed", said)
		}
	}
}
