package drain

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
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
		q := &request{ResponseWriter: w, ctx: ctx, cancel: cancel, began: time.Now(), websocket: isWebSocket(r), rpc: callOf(r)}
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

type connKey struct{}

// Returned says that the client of this request, which came through
// Gate.Handler, is a returning one: it was connected to this service before.
// Counted once per request; does nothing for a request of no Gate.
func Returned(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*Conn); ok {
		c.Returned()
	}
}
