package sidecar

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// maxHead bounds what is kept of a request's or a response's head while it is
// incomplete. A longer one is no handshake.
const maxHead = 16 << 10

// dialogue follows what client and server say to each other as far as needed to
// let the connection go: whether it has become a WebSocket, and where its frames
// begin and end. It changes nothing and does no I/O; its methods may be called
// concurrently, but client and server from one goroutine each.
//
// Until a handshake is seen it keeps no account of requests and responses. A
// handshake can come after other requests of a kept-alive connection: every time
// the client speaks after the server did may be the start of one, since a client
// cannot ask for an upgrade before it has read what came before.
type dialogue struct {
	mu    sync.Mutex
	phase phase
	// The server has spoken since the client last did, so that what the client
	// says next may start a request.
	answered bool
	deaf     bool   // what the client is saying is no handshake
	head     []byte // of the request, or while asked the response, that is under way
	up, down wsframe.Tracker

	askedAt time.Time
	took    func(time.Duration) // told how long the handshake took
}

type phase uint8

const (
	plain    phase = iota // bytes
	asked                 // the client asks for a WebSocket, the answer is not complete
	switched              // frames
)

// farewell is how the client can be told that its connection ends.
type farewell uint8

const (
	later    farewell = iota // something is under way, which has to end first
	byFrame                  // with a close frame
	byFIN                    // without a word
	unneeded                 // the server has sent a close frame itself
)

// newDialogue is for one connection; took is told how long its handshake took.
func newDialogue(took func(time.Duration)) *dialogue {
	return &dialogue{
		answered: true, took: took,
		up: wsframe.Tracker{From: wsframe.Client}, down: wsframe.Tracker{From: wsframe.Server},
	}
}

// client takes what the client said; call it before the server hears it.
func (d *dialogue) client(p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.phase == plain {
		p = d.request(p)
	}
	if d.phase != plain {
		d.up.Follow(p)
	}
}

// request looks for the head of a handshake and returns what follows it.
func (d *dialogue) request(p []byte) (rest []byte) {
	if d.answered {
		d.answered, d.deaf, d.head = false, false, nil
	}
	if d.deaf {
		return nil
	}
	head, n := grow(d.head, p)
	const start = "GET "
	switch {
	case len(head) > maxHead, !strings.HasPrefix(start, string(head[:min(len(head), len(start))])):
		d.deaf, d.head = true, nil
	case n < 0:
		d.head = bytes.Clone(head)
	case isUpgrade(head, " HTTP/1.1"):
		d.phase, d.head, d.askedAt = asked, nil, time.Now()
		d.up = wsframe.Tracker{From: wsframe.Client}
		return p[n:]
	default:
		d.deaf, d.head = true, nil
	}
	return nil
}

// server takes what the server said, at most up to the end of the head or frame
// that is under way, and says how much: at least one byte if p has one.
func (d *dialogue) server(p []byte) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.phase {
	case asked:
		return d.response(p)
	case switched:
		return d.down.Next(p)
	}
	d.answered = true
	return len(p)
}

func (d *dialogue) response(p []byte) int {
	head, n := grow(d.head, p)
	const interim, upgraded = "HTTP/1.1 1", "HTTP/1.1 101"
	switch {
	case len(head) > maxHead, !strings.HasPrefix(interim, string(head[:min(len(head), len(interim))])):
		d.phase, d.head, d.answered = plain, nil, true
		return len(p)
	case n < 0:
		d.head = bytes.Clone(head)
		return len(p)
	case !bytes.HasPrefix(head, []byte(upgraded)):
		d.head = nil // 100 or 103: the answer is still to come
	case isUpgrade(head, ""):
		d.phase, d.head = switched, nil
		d.took(time.Since(d.askedAt))
	default:
		d.phase, d.head, d.answered = plain, nil, true
	}
	return n
}

// grow returns head and p together, up to the empty line that ends a head, and
// how much of p that is; -1 if there is none yet.
func grow(head, p []byte) (grown []byte, n int) {
	const end = "\r\n\r\n"
	before := len(head)
	grown = p
	if before > 0 {
		grown = append(head[:before:before], p[:min(len(p), maxHead+1)]...)
	}
	at := bytes.Index(grown, []byte(end))
	if at < 0 {
		return grown, -1
	}
	return grown[:at+len(end)], at + len(end) - before
}

// isUpgrade: the head's first line ends in suffix, and a header says
// "Upgrade: websocket".
func isUpgrade(head []byte, suffix string) bool {
	first := true
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if first {
			if !strings.HasSuffix(line, suffix) {
				return false
			}
			first = false
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		if !strings.EqualFold(name, "Upgrade") {
			continue
		}
		for protocol := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(protocol), "websocket") {
				return true
			}
		}
	}
	return false
}

// chooseFarewell is how the client can be told now.
func (d *dialogue) chooseFarewell() farewell {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.phase == asked:
		return later
	case d.phase == plain || d.down.Lost():
		return byFIN
	case d.down.Closed():
		return unneeded
	case d.down.Between():
		return byFrame
	}
	return later
}

// clientClosed: the client has sent a close frame, whole.
func (d *dialogue) clientClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase == switched && d.up.Closed() && d.up.Between()
}

// serverCanBeTold: a close frame may be put into what the client says.
func (d *dialogue) serverCanBeTold() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase == switched && !d.up.Closed() && d.up.Between()
}
