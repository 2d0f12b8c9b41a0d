package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/sidecar/http1"
)

// How long a refused client has to show that it speaks HTTP. In Auto mode it may
// be one that waits for the server's first word.
const (
	headWait = 5 * time.Second
	autoWait = 250 * time.Millisecond
)

// refuse tells the client why, if it speaks HTTP, and closes its connection.
func (s *Sidecar) refuse(ctx context.Context, l *link, why error) {
	c := l.client
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
	word := s.read(io.MultiReader(bytes.NewReader(l.early), c), why)
	if word == nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(s.CloseWait()))
	_, _ = c.Write(word)
	// The peer's FIN is waited for: closing with bytes unread would take the
	// answer back.
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<20))
}

// read reads the head of a request and returns what it is answered; nil as soon as
// it is none.
func (s *Sidecar) read(r io.Reader, why error) []byte {
	var requests http1.Messages
	buf := make([]byte, 2<<10)
	for total := 0; total < 1<<20; {
		n, err := r.Read(buf)
		total += n
		for p := buf[:n]; len(p) > 0; {
			took, e := requests.Next(p)
			p = p[took:]
			switch {
			case e&http1.Preface != 0:
				return goAway(why)
			case e&http1.Lost != 0:
				return nil
			case e&http1.Headed != 0:
				return s.answer(refusal{why: why, headless: requests.Head.Method == "HEAD"})
			}
		}
		if err != nil {
			return nil
		}
	}
	return nil
}

// refusal is how a request is answered that is refused.
type refusal struct {
	why      error
	headless bool // by a head alone
	seen     bool // the server has seen the request, so that no proxy may send it elsewhere by itself
}

// answer is 503 with Retry-After, and the reason as text.
func (s *Sidecar) answer(r refusal) []byte {
	text := r.why.Error() + "\n"
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable))
	fmt.Fprintf(&b, "Retry-After: %d\r\nConnection: close\r\n", int(math.Ceil(s.RetryAfter().Seconds())))
	if !r.seen {
		word, _, _ := strings.Cut(text, ":")
		fmt.Fprintf(&b, "%s: %s\r\n", drain.RefusedHeader, word)
	}
	fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n", len(text))
	if !r.headless {
		b.WriteString(text)
	}
	return []byte(b.String())
}

// errHTTP2 is what a client is told that speaks HTTP/2, until its streams can be
// let go one by one.
var errHTTP2 = errors.New("HTTP/2 is not followed by the sidecar: its streams would all end at once; speak HTTP/1.1, use the library, or run the sidecar with --mode tcp")

// goAway is a server's side of HTTP/2 that ends with its reason before it has begun.
func goAway(why error) []byte {
	const settings, goAway, http11Required = 0x4, 0x7, 0xd
	b := []byte{0, 0, 0, settings, 0, 0, 0, 0, 0}
	b = append(b, 0, 0, byte(8+len(why.Error())), goAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, http11Required)
	return append(b, why.Error()...)
}

// errUnreachable is what a client is told when the server behind cannot be
// reached; the reason is for the log.
var errUnreachable = errors.New("unreachable: the server behind does not accept connections; connect to another instance")
