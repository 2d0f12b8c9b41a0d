package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// hello is the first message on every WebSocket and event stream, as JSON.
type hello struct {
	Instance string `json:"instance"`
	Colour   string `json:"colour"`
	Version  string `json:"version"`
	// From is the first numbered message that follows; see server.feed.
	From uint64 `json:"from,omitempty"`
}

// server is the chat: what one client says with "/all …" everyone hears, anything
// else is echoed.
type server struct {
	hello hello
	room  room
	loop  *loop
	asks  bool // its clients to come over
	log   *slog.Logger
}

func newServer(h hello, log *slog.Logger) *server {
	return &server{hello: h, loop: newLoop(0), log: log}
}

// handler serves /, /ws and /events through the gate, and /metrics beside it, so
// that a draining instance can still be scraped. A nil gate is none.
func (s *server) handler(gate *drain.Gate) http.Handler {
	chat := http.NewServeMux()
	chat.HandleFunc("GET /{$}", s.plain)
	chat.HandleFunc("GET /ws", s.websocket)
	chat.HandleFunc("GET /events", s.events)
	var gated http.Handler = chat
	if gate != nil {
		gated = gate.Handler(chat)
	}
	mux := http.NewServeMux()
	mux.Handle("/", gated)
	mux.Handle("GET /metrics", s.metrics(gate))
	return mux
}

// since is the hello as it is said.
func (h hello) since(from uint64) string {
	h.From = from
	b, _ := json.Marshal(h)
	return string(b)
}

// returns tells the gate about a client that says it was here before.
func returns(r *http.Request) {
	if r.URL.Query().Get("returning") == "1" {
		drain.Returned(r)
	}
}

func (s *server) plain(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Colour", s.hello.Colour)
	fmt.Fprintln(w, s.hello.Instance)
}

func (s *server) websocket(w http.ResponseWriter, r *http.Request) {
	s.loop.letIn()
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	returns(r)
	seat, from := s.room.enter()
	var telling sync.WaitGroup
	defer telling.Wait()
	defer s.room.leave(seat)
	if err := write(r.Context(), conn, s.hello.since(from)); err != nil {
		return
	}
	if s.asks {
		drain.OnAsk(r, func(within time.Duration) { _ = write(r.Context(), conn, ask(within)) })
	}
	telling.Go(func() {
		for text := range seat.heard {
			_ = write(r.Context(), conn, text)
		}
	})
	for {
		_, b, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		s.loop.turn()
		if text, all := strings.CutPrefix(string(b), "/all "); all {
			s.room.say(text)
		} else if err := write(r.Context(), conn, string(b)); err != nil {
			return
		}
	}
}

func write(ctx context.Context, conn *websocket.Conn, text string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, []byte(text))
}

// events is a server-sent event stream: the hello, then what is said to everyone,
// with a comment every 15 s.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	returns(r)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	seat, from := s.room.enter()
	defer s.room.leave(seat)
	line := "event: hello\ndata: " + s.hello.since(from) + "\n\n"
	asked := make(chan string)
	if s.asks {
		drain.OnAsk(r, func(within time.Duration) {
			select {
			case asked <- ask(within):
			case <-r.Context().Done():
			}
		})
	}
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		if _, err := fmt.Fprint(w, line); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case text := <-seat.heard:
			line = "data: " + strings.ReplaceAll(text, "\n", "\ndata: ") + "\n\n"
		case text := <-asked:
			line = "event: reconnect\ndata: " + text + "\n\n"
		case <-tick.C:
			line = ": still here\n\n"
		}
	}
}

// metrics shows the gate's counts the way any author would.
func (s *server) metrics(gate *drain.Gate) http.Handler {
	reg := prometheus.NewRegistry()
	gauge := func(name, help string, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	total := func(name, help string, value func(contract.Status) uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value(gate.Status())) }))
	}
	gauge("chat_listeners", "WebSockets and event streams that hear what is said to everyone.", func() float64 { return float64(s.room.size()) })
	if gate != nil {
		gauge("chat_active", "Connections held now.", func() float64 { return float64(gate.Status().Active) })
		total("chat_accepted_total", "Connections admitted.", func(s contract.Status) uint64 { return s.Accepted })
		total("chat_evicted_total", "Connections closed by the funnel.", func(s contract.Status) uint64 { return s.Evicted })
		total("chat_returned_total", "Connections of clients that were connected before.", func(s contract.Status) uint64 { return *s.Returned })
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}
