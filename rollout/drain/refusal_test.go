//go:build go1.26

package drain

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// refusing serves a gate that refuses everybody.
func refusing(t *testing.T, opt Options) (*Gate, *httptest.Server) {
	t.Helper()
	g := New(opt)
	srv := httptest.NewServer(g.Handler(http.NotFoundHandler()))
	t.Cleanup(srv.Close)
	if err := g.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	return g, srv
}

// An EventSource that gets 503 gives up for good.
func TestAnEventSourceIsToldToTryAgain(t *testing.T) {
	g, srv := refusing(t, Options{})
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Origin", "https://page.test")
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" || string(body) != "retry: 1000\n\n" {
		t.Errorf("%d %v: %q, %v", res.StatusCode, res.Header, body, err)
	}
	if at := res.Header.Get("Access-Control-Allow-Origin"); at != "https://page.test" {
		t.Errorf("the page's origin may not read it: %q", at)
	}
	if s := g.Status(); s.Refused != 1 || s.Accepted != 0 {
		t.Errorf("%d refused and %d accepted, want 1 and 0", s.Refused, s.Accepted)
	}
}

// Where it is wanted, a WebSocket is refused by a close frame.
func TestRefuseByClose(t *testing.T) {
	g, srv := refusing(t, Options{RefuseByClose: true})
	conn, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: chat\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, talk\r\n\r\n")
	read := bufio.NewReader(conn)
	res, err := http.ReadResponse(read, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || res.Header.Get("Sec-Websocket-Protocol") != "chat" {
		t.Fatalf("%+v, %v", res, err)
	}
	f, err := wsframe.Read(read, 125)
	if err != nil || f.Opcode != wsframe.Close || string(f.Payload) != "\x03\xf5try again later" {
		t.Errorf("%+v, %v; want a close frame 1013", f, err)
	}
	_ = conn.Close()
	if s := g.Status(); s.Refused != 1 || s.Accepted != 0 {
		t.Errorf("%d refused and %d accepted, want 1 and 0", s.Refused, s.Accepted)
	}

	res, err = http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 503 {
		t.Errorf("a request gets %d, want 503", res.StatusCode)
	}
}
