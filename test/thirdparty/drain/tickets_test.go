package drain_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// Two clients of others' libraries are let go by blue, and are known by green for who they are.
func TestClientsBringTheirTickets(t *testing.T) {
	opt := drain.Options{TicketKey: "a key of the fleet's"}
	blue, green := newInstance(t, opt, plain, http.HandlerFunc(stays)), newInstance(t, opt, plain, http.HandlerFunc(stays))

	first := blue.dial(t)
	second, _, err := gorilla.DefaultDialer.Dial(strings.Replace(blue.srv.URL, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	blue.order(t, 1, 0)

	_, _, err = first.Read(t.Context())
	_, given := ticket.Cut(closeReason(t, err))
	again, _, err := websocket.Dial(t.Context(), green.srv.URL+"/?"+ticket.Word+"="+given, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.CloseNow()
	_, _, err = second.ReadMessage()
	_, other := ticket.Cut(closeReason(t, err))
	andAgain, _, err := gorilla.DefaultDialer.Dial(strings.Replace(green.srv.URL, "http", "ws", 1), http.Header{ticket.Word: {other}})
	if err != nil {
		t.Fatal(err)
	}
	defer andAgain.Close()
	green.dial(t) // a new client

	s := green.Status()
	if given == other || s.Accepted != 3 || s.Ticketed == nil || *s.Ticketed != 2 || blue.Status().Evicted != 2 {
		t.Errorf("the tickets %q and %q were given, and green says %+v", given, other, s)
	}
}

// stays is a server that reads until its client has gone.
func stays(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	for err == nil {
		_, _, err = c.Read(r.Context())
	}
}

// closeReason is the text of the close frame 1012 in an error of either library.
func closeReason(t *testing.T, err error) string {
	t.Helper()
	if e, ok := errors.AsType[*gorilla.CloseError](err); ok && e.Code == 1012 {
		return e.Text
	}
	if e, ok := errors.AsType[websocket.CloseError](err); ok && e.Code == 1012 {
		return e.Reason
	}
	t.Fatalf("it ended with %v, want 1012", err)
	return ""
}
