package drain

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
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
