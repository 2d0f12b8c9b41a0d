//go:build go1.26

package drain

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// Pipes is a listener in memory.
type Pipes chan net.Conn

func (p Pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p Pipes) Close() error   { close(p); return nil }
func (p Pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p Pipes) Dial() net.Conn {
	near, far := net.Pipe()
	p <- far
	return near
}

// idleFor reports for how many seconds the only connection has been idle.
func idleFor(g *Gate) uint32 {
	synctest.Wait()
	_ = g.Status() // a request counts when it has lasted
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clock() - g.held[0].active.Load()
}

// Reading and writing through a listener's connection is activity, in single
// calls and while it is copied.
func TestListenerNotesActivity(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"read": func(c net.Conn) {
			for {
				if _, err := c.Read(make([]byte, 9)); err != nil {
					return
				}
			}
		},
		"write":     func(c net.Conn) { sendSlowly(c) },
		"copy to":   func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"copy from": func(c net.Conn) { _, _ = io.Copy(c, newSlowly(nil)) },
	} {
		synctest.Test(t, func(t *testing.T) {
			g, wire := New(Options{}), make(Pipes)
			gated := g.Listener(wire)
			go func() {
				c, err := gated.Accept()
				if err == nil {
					defer c.Close()
					serve(c)
				}
			}()
			c := wire.Dial()
			go func() { _, _ = io.Copy(io.Discard, c) }()
			mustFollow(t, name, g, c)
			_ = c.Close()
			pass(time.Minute)
		})
	}
}

// The same for requests: bodies, answers, and what is taken over.
func TestHandlerNotesActivity(t *testing.T) {
	const upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	for name, h := range map[string]http.HandlerFunc{
		"body": func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) },
		"answer": func(w http.ResponseWriter, r *http.Request) {
			sendSlowly(writerOf(func(p []byte) (int, error) {
				n, err := w.Write(p)
				w.(http.Flusher).Flush()
				return n, err
			}))
		},
		"copied answer": func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, newSlowly(w.(http.Flusher).Flush)) },
		"reader taken over": func(w http.ResponseWriter, r *http.Request) {
			c, brw, _ := w.(http.Hijacker).Hijack()
			defer c.Close()
			_, _ = io.WriteString(c, upgrade)
			for {
				if _, err := brw.ReadByte(); err != nil {
					return
				}
			}
		},
		"written when taken over": func(w http.ResponseWriter, r *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			defer c.Close()
			_, _ = io.WriteString(c, upgrade)
			sendSlowly(writerOf(func(p []byte) (int, error) {
				_, err := c.Write(append([]byte{0x82, byte(len(p))}, p...))
				return len(p), err
			}))
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			g, wire := New(Options{}), make(Pipes)
			srv := &http.Server{Handler: g.Handler(h)}
			go func() { _ = srv.Serve(wire) }()
			c := wire.Dial()
			go func() { _, _ = io.Copy(io.Discard, c) }()
			head := "POST / HTTP/1.1\r\nHost: x\r\n"
			switch name {
			case "body":
				head += "Content-Length: 1000\r\n"
			case "reader taken over", "written when taken over":
				head += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
			}
			_, _ = io.WriteString(c, head+"\r\n")
			mustFollow(t, name, g, c)
			_ = c.Close()
			_ = srv.Close()
			pass(time.Minute)
		})
	}
}

// mustFollow has the client say something 30 s and 60 s after the start, where the
// server reads; where it does not, it is the server that does so.
func mustFollow(t *testing.T, name string, g *Gate, c net.Conn) {
	t.Helper()
	for range 2 {
		time.Sleep(20 * time.Second)
		if idle := idleFor(g); idle != 20 {
			t.Errorf("%s: idle for %ds, want 20s", name, idle)
		}
		time.Sleep(10 * time.Second)
		if reading[name] {
			_, _ = io.WriteString(c, "ping")
		}
		if idle := idleFor(g); idle != 0 {
			t.Errorf("%s: idle for %ds when something was said, want 0s", name, idle)
		}
	}
}

var reading = map[string]bool{"read": true, "copy to": true, "body": true, "reader taken over": true}

type writerOf func([]byte) (int, error)

func (f writerOf) Write(p []byte) (int, error) { return f(p) }

func sendSlowly(w io.Writer) { _, _ = io.Copy(w, newSlowly(nil)) }

// slowly gives a few bytes each 30 s, three times.
type slowly struct {
	left  int
	flush func()
}

func newSlowly(flush func()) *slowly { return &slowly{3, flush} }

func (s *slowly) Read(p []byte) (int, error) {
	if s.flush != nil {
		s.flush()
	}
	if s.left--; s.left < 0 {
		return 0, io.EOF
	}
	time.Sleep(30 * time.Second)
	return copy(p, "pong"), nil
}

// What is copied through is the same, by the buffer and spliced.
func TestCopyThroughAListener(t *testing.T) {
	addr := echoServer(t, New(Options{}), echo)
	for _, size := range []int{0, 1, bufferSize - 1, bufferSize, bufferSize + 1, bufferSize + spliceSize, 3*(bufferSize+spliceSize) + 5, 20 << 20} {
		sent := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
		c := dialTCP(t, addr)
		go func() {
			_, _ = c.Write(sent)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
		}
	}
	// A limit of the caller's holds, and is counted down.
	lr := &io.LimitedReader{R: neverEnding('x'), N: bufferSize + spliceSize + 77}
	g := New(Options{})
	near, far := net.Pipe()
	s := &stream{Conn: near}
	s.conn, _ = g.admit(origin{}, s, ticket.Genuine{})
	go func() { _, _ = io.Copy(s, lr); _ = s.Close() }()
	if n, err := io.Copy(io.Discard, far); n != bufferSize+spliceSize+77 || err != nil || lr.N != 0 {
		t.Errorf("%d bytes, %v, %d left of the limit", n, err, lr.N)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}
