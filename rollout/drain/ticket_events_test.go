//go:build go1.26

package drain

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// source is an EventSource, as far as ids go: what it says when it comes back.
type source struct {
	lastID string
	data   []string
}

// run reads one stream to its end.
func (s *source) run(t *testing.T, url string, at func(data string)) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	if s.lastID != "" {
		r.Header.Set("Last-Event-ID", s.lastID)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	id, data := s.lastID, ""
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "id":
			id = value
		case name == "data":
			data = value
		case name == "":
			if s.lastID = id; data != "" {
				s.data = append(s.data, data)
				at(data)
			}
			data = ""
		}
	}
}

// An EventSource brings its ticket behind the last event's id, the application sees its
// own id alone, and the ticket is brought once.
func TestAnEventSourceBringsItsTicket(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	for name, ids := range map[string]bool{"with ids": true, "without ids": false} {
		t.Run(name, func(t *testing.T) {
			var seen []string
			end := make(chan bool, 1)
			app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				last := r.Header.Get("Last-Event-ID")
				seen = append(seen, last)
				w.Header().Set("Content-Type", "text/event-stream")
				if ids {
					_, _ = io.WriteString(w, "id: "+last+"x\n")
				}
				_, _ = io.WriteString(w, "data: hello\n\n")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-end:
				case <-r.Context().Done():
				}
			})
			blue, green := New(Options{TicketKey: ticketKey}), New(Options{TicketKey: ticketKey})
			old, target := httptest.NewServer(blue.Handler(app)), httptest.NewServer(green.Handler(app))
			defer old.Close()
			defer target.Close()

			var s source
			s.run(t, old.URL, func(string) { _, _ = blue.order(contract.Order{Rollout: "r", Epoch: 1, Step: 1, Ceiling: new(0)}) })
			if _, ticket, _ := strings.Cut(s.lastID, "#"); len(ticket) != 8 {
				t.Fatalf("the last id is %q", s.lastID)
			}
			for range 2 { // let in by green, and again after an end that nobody meant
				s.run(t, target.URL, func(string) { end <- true })
			}
			want := []string{"", "x", "xx", "xxx"}
			if !ids {
				want = []string{"", "", "", ""}
			}
			if len(seen) != 3 || seen[1] != want[1] || seen[2] != want[2] || s.lastID != want[3] {
				t.Errorf("the application saw the last ids %q, then %q; want %q", seen, s.lastID, want)
			}
			ticketed(t, green, 1)
			if len(s.data) != 3 {
				t.Errorf("the page heard %q", s.data)
			}
			if err := blue.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Within an event there is no room for a ticket, and behind one that cannot be followed none either.
func TestAnEventStreamWithoutRoom(t *testing.T) {
	for what, app := range map[string]http.HandlerFunc{
		"in an event": func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "data: hel") },
		"compressed": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "\x1f\x8b")
		},
	} {
		g := New(Options{TicketKey: ticketKey})
		w := httptest.NewRecorder()
		g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			app(w, r)
			_, _ = g.order(contract.Order{Rollout: "r", Epoch: 1, Step: 1, Ceiling: new(0)})
			<-r.Context().Done()
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if body := w.Body.String(); strings.Contains(body, "id:") || g.Status().Evicted != 1 {
			t.Errorf("%s: %q", what, body)
		}
	}
}
