package drain

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/internal/events"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// request is one request while its handler runs. It is the ResponseWriter that
// the handler sees, and the owner of the connection until it is hijacked.
type request struct {
	http.ResponseWriter
	asks
	conn      *Conn
	ctx       context.Context
	cancel    context.CancelCauseFunc
	began     time.Time
	websocket bool
	brought   ticket.Genuine
	resumes   *string         // the id behind which an event stream goes on, whose client said it with a ticket
	events    *events.Tracker // of an event stream that ends with a ticket; belongs to writing
	switched  bool            // 101 was written through WriteHeader
	rpc       call
	begun     bool // its response has; belongs to writing

	in             *line // while it is short
	before, behind *request

	mu    sync.Mutex
	taken taken // nil: not hijacked
	done  bool  // the handler has returned

	left    atomic.Bool // it was told to go
	forced  atomic.Bool // … and ended after CloseWait
	writing sync.Mutex  // held while the handler writes
	reading sync.Mutex  // held while it reads the body
}

// taken is a connection that was hijacked.
type taken interface {
	net.Conn
	owner
	forget()
}

func (q *request) leave() {
	// A WebSocket handshake under way is let through, to be told 1012.
	if !q.websocket {
		q.left.Store(true)
		q.cancel(ErrEvicted)
	}
}

// force ends the connection, not the counting: the request lingers until its
// handler returns. A handshake under way is let through, however late.
func (q *request) force() (over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken != nil || q.done || q.websocket {
		return false // after the handler it would hit the connection's next request
	}
	q.forced.Store(true)
	c := http.NewResponseController(q.ResponseWriter)
	past := time.Unix(1, 0)
	_ = c.SetWriteDeadline(past) // over HTTP/2 it resets the stream
	_ = c.SetReadDeadline(past)
	// What the handler reads or writes returns by that, and it begins nothing anew.
	q.writing.Lock()
	defer q.writing.Unlock()
	q.reading.Lock()
	defer q.reading.Unlock()
	if nc, _, err := c.Hijack(); err == nil {
		_ = nc.Close()
	}
	return false
}

func (q *request) finish() {
	q.mu.Lock()
	q.done = true
	taken := q.taken
	q.mu.Unlock()
	q.cancel(nil)
	if taken != nil {
		taken.forget()
		return
	}
	q.conn.Done()
	if q.left.Load() && !q.forced.Load() {
		q.endEvents()
		q.rpc.endTrailers(q.ResponseWriter.Header())
	}
}

// hijack hands the connection over; see Handler.
func (q *request) hijack() (net.Conn, *bufio.ReadWriter, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.done:
		return nil, nil, errors.New("hijack: the handler has returned")
	case q.forced.Load():
		return nil, nil, errForced
	}
	nc, brw, err := http.NewResponseController(q.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	q.conn.gate.Handshake(time.Since(q.began))
	if q.websocket {
		ws := &socket{stream: stream{Conn: nc, conn: q.conn}}
		if q.switched {
			ws.frames.skipHead()
		}
		q.taken = ws
	} else {
		q.taken = &stream{Conn: nc, conn: q.conn}
	}
	brw.Writer.Reset(q.taken)
	readThrough(brw.Reader, q.taken)
	if q.conn.handOver(q.taken) {
		go q.conn.goodbye(q.taken)
	}
	return q.taken, brw, nil
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

// body is a request's body, whose reads are activity.
type body struct {
	*request
	io.ReadCloser
}

func (b *body) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.forced.Load() {
		return 0, errForced
	}
	n, err := b.ReadCloser.Read(p)
	b.conn.Active()
	return n, err
}

// abilities is the request as a ResponseWriter that can what the one below can: over
// HTTP/1 it can be taken over, over HTTP/2 it pushes.
func (q *request) abilities() http.ResponseWriter {
	for w := q.ResponseWriter; ; {
		switch below := w.(type) {
		case http.Hijacker:
			return hijackable{q}
		case http.Pusher:
			return pushing{q, below}
		case interface{ Unwrap() http.ResponseWriter }:
			w = below.Unwrap()
		default:
			return q
		}
	}
}

// hijackable is a response over HTTP/1. Only through it can a handler take its
// connection over: http.ResponseController finds this method before one below.
type hijackable struct{ *request }

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.request.hijack() }

// ReadFrom keeps the short way of a file (sendfile).
func (h hijackable) ReadFrom(r io.Reader) (int64, error) {
	from := r
	if limited, ok := r.(*io.LimitedReader); ok {
		from = limited.R
	}
	if _, ok := from.(*os.File); !ok {
		return io.Copy(struct{ io.Writer }{h.request}, r)
	}
	h.conn.Active()
	defer h.conn.Active()
	h.writing.Lock()
	defer h.writing.Unlock()
	if h.forced.Load() {
		return 0, errForced
	}
	h.begins()
	h.events = nil // nobody follows it
	return io.Copy(h.ResponseWriter, r)
}

// pushing is a response over HTTP/2.
type pushing struct {
	*request
	http.Pusher
}

func (q *request) Write(p []byte) (int, error) {
	q.conn.Active()
	q.writing.Lock()
	defer q.writing.Unlock()
	if q.forced.Load() {
		return 0, errForced
	}
	q.begins()
	if q.events != nil {
		if err := q.resume(); err != nil {
			return 0, err
		}
		n, err := q.ResponseWriter.Write(p)
		q.events.Follow(p[:n])
		return n, err
	}
	return q.rpc.write(q.ResponseWriter, p, q.left.Load())
}

// resume has the client forget its ticket: the next time it says its last id, it says
// the application's.
func (q *request) resume() error {
	if q.resumes == nil {
		return nil
	}
	id := *q.resumes
	q.resumes = nil
	_, err := fmt.Fprintf(q.ResponseWriter, "id: %s\n\n", id)
	q.events.Follow([]byte("id: " + id + "\n\n"))
	return err
}

// endEvents gives the client of an event stream a ticket with its last id, which it says
// when it comes back: an event without data, of which no page hears.
func (q *request) endEvents() {
	q.writing.Lock()
	defer q.writing.Unlock()
	if q.events == nil {
		return
	}
	if id, between := q.events.Between(); between {
		_, _ = fmt.Fprintf(q.ResponseWriter, "id: %s\n\n", ticket.Behind(id, q.conn.gate.Ticket()))
	}
}

func (q *request) WriteString(s string) (int, error) { return q.Write([]byte(s)) }

func (q *request) WriteHeader(code int) {
	q.writing.Lock()
	defer q.writing.Unlock()
	if q.forced.Load() {
		return
	}
	q.switched = q.switched || code == http.StatusSwitchingProtocols
	if code >= http.StatusOK {
		q.begins()
	}
	q.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (q *request) Unwrap() http.ResponseWriter { return q.ResponseWriter }

func (q *request) Flush() { _ = q.FlushError() }
func (q *request) FlushError() error {
	q.writing.Lock()
	defer q.writing.Unlock()
	if q.forced.Load() {
		return errForced
	}
	q.begins()
	if q.rpc.protocol != notRPC {
		q.conn.streams()
	}
	return http.NewResponseController(q.ResponseWriter).Flush()
}

// A deadline of the handler's does not give a connection back that was ended.
func (q *request) SetReadDeadline(t time.Time) error {
	return q.set((*http.ResponseController).SetReadDeadline, t)
}

func (q *request) SetWriteDeadline(t time.Time) error {
	return q.set((*http.ResponseController).SetWriteDeadline, t)
}

func (q *request) set(deadline func(*http.ResponseController, time.Time) error, t time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.forced.Load() {
		return errForced
	}
	return deadline(http.NewResponseController(q.ResponseWriter), t)
}

// CloseNotify is for those that go by http.CloseNotifier: the client has gone, or is to
// go.
func (q *request) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(q.ctx, func() { gone <- true })
	return gone
}
