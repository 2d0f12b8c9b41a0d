package drain

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// Handler wraps the handler of any net/http server. While draining or above the
// limit it answers 503 with Retry-After and RefusedHeader; what Options.Pass names is
// served uncounted. A request counts while next runs, and a connection that next takes
// over (Hijack, as WebSocket libraries do) until it is closed. What lasts (see
// Options.Long) is held and may be evicted; other requests end by themselves. When
// evicted,
//   - a WebSocket gets a close frame, 1012 "service restart" or as in the options,
//     between two messages, or between two frames of one that takes longer than
//     CloseWait; its reads go on until the peer's close frame, and after CloseWait
//     the connection is closed;
//   - another upgraded connection gets a FIN and is closed after CloseWait;
//   - a plain or streaming response has its request's context cancelled with
//     ErrEvicted as its cause and ends when next returns; if that takes longer
//     than CloseWait, its connection is closed, or over HTTP/2 its stream reset.
//     Streams of gRPC, gRPC-Web and Connect end with the code unavailable.
//
// What is written after the goodbye fails with an error that wraps ErrEvicted, and what
// is read or written after the connection was closed with one that wraps net.ErrClosed
// too. A connection that next has taken over and forgotten is closed when next has
// returned and a read or write has failed. Other requests of the same HTTP/1.1 or HTTP/2
// connection are not touched.
func (g *Gate) Handler(next http.Handler) http.Handler {
	retry := strconv.Itoa(int(math.Ceil(g.opt.RetryAfter.Seconds())))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.opt.Pass != nil && g.opt.Pass(r) {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithCancelCause(r.Context())
		q := &request{ResponseWriter: w, ctx: ctx, cancel: cancel, began: time.Now(), websocket: isWebSocket(r), rpc: callOf(r, g.Ticket)}
		if g.book != nil {
			r = g.takes(q, r)
		}
		if err := g.enter(q, origin{machineOf(r.RemoteAddr), nodeOf(r.Header)}); err != nil {
			cancel(err)
			g.turnAway(w, r, retry, err)
			return
		}
		defer q.finish()
		r = r.WithContext(context.WithValue(ctx, connKey{}, q.conn))
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &body{q, r.Body}
		}
		next.ServeHTTP(q.abilities(), r)
	})
}

// takes is the request without the ticket that an EventSource brings behind the last
// event's id, as the application has to see it. The request may bring it elsewhere.
func (g *Gate) takes(q *request, r *http.Request) *http.Request {
	const lastID = "Last-Event-Id"
	brought := ticket.Of(r)
	if id, behind := ticket.Cut(" " + r.Header.Get(lastID)); behind != "" {
		id = strings.TrimPrefix(id, " ")
		q.resumes = &id
		r = r.Clone(r.Context())
		if r.Header.Set(lastID, id); id == "" {
			r.Header.Del(lastID)
		}
		if brought == "" {
			brought = behind
		}
	}
	q.brought = g.book.Check(brought, time.Now())
	return r
}

type connKey struct{}

// Returned says that the client of this request, which came through
// Gate.Handler, is a returning one: it was connected to this service before.
// Counted once per request; does nothing for a request of no Gate.
func Returned(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*Conn); ok {
		c.Returned()
	}
}

// Errors that tell why a connection was refused.
var (
	// ErrDraining: refused because the instance is letting its connections go.
	ErrDraining = errors.New("draining: new connections are refused; connect to another instance")
	// ErrFull: refused because Options.Limit connections are held.
	ErrFull = errors.New("full: the limit of connections is reached; connect to another instance")
)

// turnAway tells the client that it is refused in the words that its kind comes back
// after: an EventSource, which any answer but 200 ends for good, when to try again; a
// WebSocket under Options.RefuseByClose a close frame; everybody else 503.
func (g *Gate) turnAway(w http.ResponseWriter, r *http.Request, retry string, err error) {
	switch {
	case isEventSource(r):
		refuseEvents(w, r, retry)
	case g.opt.RefuseByClose && isWebSocket(r) && refuseByClose(w, r, g.opt.CloseWait):
	default:
		refuse(w, r, retry, err)
	}
}

// RefusedHeader stands in every response by which a gate refuses: "draining" or "full".
// No handler has seen such a request, so that a proxy may send it to another instance.
const RefusedHeader = "X-Sluice-Refused"

func refuse(w http.ResponseWriter, r *http.Request, retry string, err error) {
	w.Header().Set("Retry-After", retry)
	word, _, _ := strings.Cut(err.Error(), ":")
	w.Header().Set(RefusedHeader, word)
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // so that the client connects anew, to another instance
	}
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

func isWebSocket(r *http.Request) bool {
	for _, v := range r.Header.Values("Upgrade") {
		for protocol := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(protocol), "websocket") {
				return true
			}
		}
	}
	return false
}

func isEventSource(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// refuseEvents is a stream of events that ends when it has said when to try again. To a
// page of another origin it has to be readable, or it is an error; there is nothing in it.
func refuseEvents(w http.ResponseWriter, r *http.Request, retry string) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Vary", "Origin")
	}
	if r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	_, _ = fmt.Fprintf(w, "retry: %s000\n\n", retry)
}

// refuseByClose accepts a WebSocket and closes it with 1013, "try again later"; false if
// it is none that can be accepted, of which nothing was said then.
func refuseByClose(w http.ResponseWriter, r *http.Request, wait time.Duration) bool {
	key := r.Header.Get("Sec-Websocket-Key")
	if r.ProtoMajor != 1 || r.Method != http.MethodGet || key == "" || r.Header.Get("Sec-Websocket-Version") != "13" {
		return false
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(wait))
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, 4.2.2
	_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if first, _, _ := strings.Cut(r.Header.Get("Sec-Websocket-Protocol"), ","); first != "" {
		_, _ = fmt.Fprintf(rw, "Sec-WebSocket-Protocol: %s\r\n", strings.TrimSpace(first)) // browsers demand one of theirs
	}
	_, _ = io.WriteString(rw, "\r\n")
	_, _ = rw.Write(wsframe.Goodbye(1013, "try again later"))
	if rw.Flush() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(rw, 1<<20)) // until the peer's close frame and FIN
	}
	return true
}
