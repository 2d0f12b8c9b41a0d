package drain

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

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
	return q.rpc.write(q.ResponseWriter, p, q.left.Load())
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
