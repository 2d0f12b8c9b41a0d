package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// How long a refused client has to show that it speaks HTTP. In Auto mode it may
// be one that waits for the server's first word.
const (
	headWait = 5 * time.Second
	autoWait = 250 * time.Millisecond
)

// refuse tells the client why, if it speaks HTTP, and closes its connection.
func (s *Sidecar) refuse(ctx context.Context, c *net.TCPConn, why error) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	wait := headWait
	switch s.opt.Mode {
	case TCP:
		return
	case Auto:
		wait = autoWait
	}
	_ = c.SetDeadline(time.Now().Add(wait))
	head, ok := readHead(c)
	if !ok {
		return
	}
	_ = c.SetDeadline(time.Now().Add(s.CloseWait()))
	_, _ = c.Write(s.answer(head, why))
	// The peer's FIN is waited for: closing with bytes unread would take the
	// answer back.
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
}

var methods = []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "}

// readHead reads the head of an HTTP/1 request; ok is false as soon as it is
// none.
func readHead(r io.Reader) (head []byte, ok bool) {
	buf := make([]byte, 0, 1<<10)
	for len(buf) < maxHead {
		buf = slices.Grow(buf, 512)
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if !slices.ContainsFunc(methods, func(m string) bool {
			return strings.HasPrefix(m, string(buf[:min(len(m), len(buf))]))
		}) {
			return nil, false
		}
		if head, _, whole := bytes.Cut(buf, []byte("\r\n\r\n")); whole {
			first, _, _ := bytes.Cut(head, []byte("\r\n"))
			return head, bytes.Contains(first, []byte(" HTTP/1."))
		}
		if err != nil {
			return nil, false
		}
	}
	return nil, false
}

// answer is 503 with Retry-After, and the reason as text.
func (s *Sidecar) answer(head []byte, why error) []byte {
	text := why.Error() + "\n"
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable))
	fmt.Fprintf(&b, "Retry-After: %d\r\nConnection: close\r\n", int(math.Ceil(s.RetryAfter().Seconds())))
	fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n", len(text))
	if !bytes.HasPrefix(head, []byte("HEAD ")) {
		b.WriteString(text)
	}
	return b.Bytes()
}

// errUnreachable is what a client is told when the server behind cannot be
// reached; the reason is for the log.
var errUnreachable = errors.New("unreachable: the server behind does not accept connections; connect to another instance")
