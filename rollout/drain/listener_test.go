//go:build go1.26

package drain

import (
	"io"
	"net"
	"testing"
	"time"
)

// echoServer serves TCP behind the gate until the test ends.
func echoServer(t *testing.T, g *Gate, serve func(net.Conn)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gated := g.Listener(ln)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := gated.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-ended })
	return ln.Addr().String()
}

func echo(c net.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

func dialTCP(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func sayHello(t *testing.T, c net.Conn) {
	t.Helper()
	b := make([]byte, 5)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("echo is %q, %v", b, err)
	}
}

func TestListenerEndsWithFIN(t *testing.T) {
	g := New(Options{CloseWait: time.Minute})
	addr := echoServer(t, g, echo)
	c, other := dialTCP(t, addr), dialTCP(t, addr)
	sayHello(t, c)
	sayHello(t, other)
	mustOrder(t, g, 1, new(0), 0, 0)
	for _, c := range []net.Conn{c, other} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read %d bytes, %v; want a FIN", n, err)
		}
		_ = c.Close()
	}
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	late := dialTCP(t, addr)
	if n, err := late.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a new connection read %d bytes, %v; want it closed", n, err)
	}
	if s := g.Status(); s.Accepted != 2 || s.Evicted != 2 {
		t.Errorf("status %+v, want 2 of 2 evicted", s)
	}
}

func TestListenerRefusesAboveTheLimit(t *testing.T) {
	g := New(Options{Limit: 1})
	addr := echoServer(t, g, echo)
	c := dialTCP(t, addr)
	sayHello(t, c)
	if n, err := dialTCP(t, addr).Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the second read %d bytes, %v; want it closed", n, err)
	}
	sayHello(t, c)
}

// A peer that keeps its side open is closed when CloseWait has passed.
func TestListenerClosesAfterCloseWait(t *testing.T) {
	g := New(Options{CloseWait: 20 * time.Millisecond})
	readErr := make(chan error, 1)
	addr := echoServer(t, g, func(c net.Conn) {
		c.(interface{ Returned() }).Returned()
		_, err := io.Copy(io.Discard, c)
		readErr <- err
	})
	c := dialTCP(t, addr)
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	for g.Status().Returned == nil {
		time.Sleep(time.Millisecond)
	}
	mustOrder(t, g, 1, new(0), 0, 0)
	if err := <-readErr; err == nil {
		t.Error("the server's read ended regularly, want it cut off")
	}
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
