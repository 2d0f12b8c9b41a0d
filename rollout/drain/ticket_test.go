//go:build go1.26

package drain

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

const ticketKey = "a key of the fleet's"

func ticketed(t *testing.T, g *Gate, want uint64) {
	t.Helper()
	s := g.Status()
	if s.Ticketed == nil || *s.Ticketed != want || s.Check() != nil {
		t.Errorf("ticketed is %v, want %d (%v)", s.Ticketed, want, s.Check())
	}
}

// What one instance gave is counted by another, once, and what nobody gave is not.
func TestTicketsOfAFleet(t *testing.T) {
	blue, green := New(Options{TicketKey: ticketKey}), New(Options{TicketKey: ticketKey, Limit: 5})
	ticketed(t, green, 0)
	given := blue.Ticket()
	bring := func(ticket string) (*Conn, error) { return green.AdmitHooks(Hooks{Close: func() {}, Ticket: ticket}) }
	for _, text := range []string{"", "k3v9x2p", "not a ticket", New(Options{TicketKey: "a key of another's"}).Ticket()} {
		_, _ = bring(text)
	}
	ticketed(t, green, 0)
	c, _ := bring(given)
	ticketed(t, green, 1)
	if _, err := bring(blue.Ticket()); err != ErrFull {
		t.Fatalf("%v, want it full", err)
	}
	c.Done()
	c, _ = bring(given)
	c.Ticketed() // as the application knows
	ticketed(t, green, 2)
	if can := green.Status().Can; !slices.Contains(can, contract.CanTickets) {
		t.Errorf("it can %q", can)
	}
}

// A ticket of who is refused is not taken: it is brought again, perhaps here.
func TestATicketOfWhoIsRefused(t *testing.T) {
	blue, green := New(Options{TicketKey: ticketKey}), New(Options{TicketKey: ticketKey, Limit: 1})
	c, _ := green.Admit(func() {})
	given := blue.Ticket()
	if _, err := green.AdmitHooks(Hooks{Close: func() {}, Ticket: given}); err == nil {
		t.Fatal("it is not full")
	}
	c.Done()
	_, _ = green.AdmitHooks(Hooks{Close: func() {}, Ticket: given})
	ticketed(t, green, 1)
}

// A request that brings a ticket is counted when it turns out to last, and does not take
// the ticket if it does not.
func TestATicketOfARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blue, green := New(Options{TicketKey: ticketKey}), New(Options{TicketKey: ticketKey, Long: time.Second})
		var takes time.Duration
		h := green.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			time.Sleep(takes)
			green.Status()
		}))
		r := httptest.NewRequest("GET", "/?"+ticket.Word+"="+blue.Ticket(), nil)
		h.ServeHTTP(httptest.NewRecorder(), r)
		ticketed(t, green, 0)
		takes = 2 * time.Second
		h.ServeHTTP(httptest.NewRecorder(), r)
		ticketed(t, green, 1)
		h.ServeHTTP(httptest.NewRecorder(), r)
		ticketed(t, green, 1)
	})
}

// Without a key, or with one that can be guessed, there are none, and nothing is said of
// them: the control plane must not wait for tickets that nobody gives.
func TestNoTicketsWithoutAKey(t *testing.T) {
	for _, key := range []string{"", "too short"} {
		g := New(Options{TicketKey: key})
		_, _ = g.AdmitHooks(Hooks{Close: func() {}, Ticket: New(Options{TicketKey: ticketKey}).Ticket()})
		if s := g.Status(); s.Ticketed != nil || slices.Contains(s.Can, contract.CanTickets) || g.Ticket() != "" {
			t.Errorf("with the key %q: %v, it can %q", key, s.Ticketed, s.Can)
		}
		if frame := string(g.CloseFrame()); frame != "\x88\x11\x03\xf4service restart" {
			t.Errorf("the goodbye is %q", frame)
		}
	}
}
