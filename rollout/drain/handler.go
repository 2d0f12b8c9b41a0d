package drain

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Handler wraps the handler of any net/http server. While draining or above the
// limit it answers 503 with Retry-After. A request is held while next runs, and
// a connection that next takes over (Hijack, as WebSocket libraries do) until it
// is closed. When evicted,
//   - a WebSocket gets a close frame 1012 "service restart" between two frames;
//     what the application writes afterwards is dropped, its reads go on until
//     the peer's close frame, and after CloseWait the connection is closed;
//   - another upgraded connection gets a FIN and is closed after CloseWait;
//   - a plain or streaming response has its request's context cancelled with
//     ErrEvicted as its cause and ends when next returns; if that takes longer
//     than CloseWait, reads and writes fail.
//
// Other requests of the same HTTP/1.1 or HTTP/2 connection are not touched.
func (g *Gate) Handler(next http.Handler) http.Handler {
	retry := strconv.Itoa(int(math.Ceil(g.opt.RetryAfter.Seconds())))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		q := &request{ResponseWriter: w, cancel: cancel, began: time.Now(), websocket: isWebSocket(r)}
		conn, err := g.admit(origin{machineOf(r.RemoteAddr), nodeOf(r.Header)}, q)
		if err != nil {
			cancel(err)
			refuse(w, r, retry, err)
			return
		}
		q.conn = conn
		defer q.finish()
		r = r.WithContext(context.WithValue(ctx, connKey{}, conn))
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &body{noted{r.Body, conn}, r.Body}
		}
		next.ServeHTTP(q, r)
	})
}

func refuse(w http.ResponseWriter, r *http.Request, retry string, err error) {
	w.Header().Set("Retry-After", retry)
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

// request is one request while its handler runs. It is the ResponseWriter that
// the handler sees, and the owner of the connection until it is hijacked.
type request struct {
	http.ResponseWriter
	conn      *Conn
	cancel    context.CancelCauseFunc
	began     time.Time
	websocket bool
	switched  bool // 101 was written through WriteHeader

	mu    sync.Mutex
	taken bool // hijacked
	done  bool // the handler has returned
}

func (q *request) leave() {
	// A WebSocket handshake under way is let through, to be told 1012.
	if !q.websocket {
		q.cancel(ErrEvicted)
	}
}

// force ends the connection, not the counting: the request lingers until its
// handler returns.
func (q *request) force() (over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken || q.done {
		return false // after the handler the deadlines would hit the connection's next request
	}
	q.cancel(ErrEvicted)
	c := http.NewResponseController(q.ResponseWriter)
	past := time.Unix(1, 0)
	_ = c.SetWriteDeadline(past)
	_ = c.SetReadDeadline(past)
	return false
}

func (q *request) finish() {
	q.mu.Lock()
	q.done = true
	taken := q.taken
	q.mu.Unlock()
	q.cancel(nil)
	if !taken {
		q.conn.Done()
	}
}

// Hijack hands the connection over; see Handler.
func (q *request) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.done {
		return nil, nil, errors.New("hijack: the handler has returned")
	}
	nc, brw, err := http.NewResponseController(q.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	q.taken = true
	q.conn.gate.Handshake(time.Since(q.began))
	var taken interface {
		net.Conn
		owner
	} = &stream{Conn: nc, conn: q.conn}
	if q.websocket {
		ws := &socket{stream: stream{Conn: nc, conn: q.conn}}
		if q.switched {
			ws.frames.skipHead()
		}
		taken = ws
	}
	brw.Writer.Reset(taken)
	readThrough(brw.Reader, taken)
	if q.conn.handOver(taken) {
		go q.conn.goodbye(taken)
	}
	return taken, brw, nil
}

// readThrough has br go on with c, behind what it has read already.
func readThrough(br *bufio.Reader, c net.Conn) {
	b, _ := br.Peek(br.Buffered())
	if len(b) == 0 {
		br.Reset(c)
		return
	}
	b = bytes.Clone(b)
	br.Reset(io.MultiReader(bytes.NewReader(b), c))
	_, _ = br.Peek(len(b))
}

// noted is a reader whose reads are activity of conn.
type noted struct {
	io.Reader
	conn *Conn
}

func (r *noted) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.conn.Active()
	return n, err
}

type body struct {
	noted
	io.Closer
}

func (q *request) Write(p []byte) (int, error) {
	q.conn.Active()
	return q.ResponseWriter.Write(p)
}

func (q *request) WriteHeader(code int) {
	q.switched = q.switched || code == http.StatusSwitchingProtocols
	q.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (q *request) Unwrap() http.ResponseWriter { return q.ResponseWriter }

func (q *request) FlushError() error { return http.NewResponseController(q.ResponseWriter).Flush() }
func (q *request) Flush()            { _ = q.FlushError() }

// ReadFrom keeps the short way of a file (sendfile).
func (q *request) ReadFrom(r io.Reader) (int64, error) {
	switch r.(type) {
	case *os.File, *io.LimitedReader:
		q.conn.Active()
		defer q.conn.Active()
		return io.Copy(q.ResponseWriter, r)
	}
	return io.Copy(q.ResponseWriter, &noted{r, q.conn})
}
