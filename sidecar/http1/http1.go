// Package http1 follows HTTP/1 (RFC 9112) in whatever pieces it comes: where the
// messages of one direction begin and end, and of each head the little that
// decides how a connection can be let go. It changes nothing, does no I/O and
// keeps one line at most.
package http1

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// Side is who sends the messages that are followed.
type Side uint8

const (
	Client Side = iota // requests
	Server             // responses
)

// Event is what the bytes that Next took have come to; several at once are or-ed.
type Event uint8

const (
	// Began: behind what was taken, a request begins. Requests only.
	Began Event = 1 << iota
	// Headed: the head is complete, Messages.Head has it.
	Headed
	// Ended: the message is complete.
	Ended
	// Chunked: a chunk of an event stream is complete, another, or the last, may be
	// put here.
	Chunked
	// Preface: this is HTTP/2; all was taken.
	Preface
	// Lost: this is no HTTP/1, or one that different readers understand
	// differently; all was taken, and it stays so.
	Lost
)

// Head is what is known of a head.
type Head struct {
	Method      string `json:"method,omitempty"`    // of a request
	Status      int    `json:"status,omitempty"`    // of a response
	WebSocket   bool   `json:"websocket,omitempty"` // it is HTTP/1.1 with "Upgrade: websocket"
	EventStream bool   `json:"sse,omitempty"`       // its content type is text/event-stream
	length      int64  // Content-Length; -1 is none
	chunked     bool
	minor       byte
}

// Messages follows the messages of one direction, one after the other. The zero
// Messages follows a client from before its first byte. It belongs to one
// goroutine.
type Messages struct {
	// From is set before the first byte.
	From Side
	// Answers is the method of the request that the next response answers: a
	// response to HEAD has no body, one to CONNECT may have no end.
	Answers string
	// Head is that of the message under way, once it is Headed.
	Head Head

	part part
	line []byte   // the beginning of the line that is under way
	size int      // of that line, bytes
	last [10]byte // its last bytes, behind the first ones that line has
	left uint64   // of a body or chunk, bytes
}

type part uint8

const (
	between   part = iota
	start          // line
	fields         // lines
	body           // left bytes
	chunk          // the line with its size
	chunkData      // left bytes
	trailers       // lines
	endless        // a body that ends with the connection
	lost
)

const (
	maxKept  = 512      // of a line; nothing that decides is longer
	maxStart = 64 << 10 // of a start line: what is longer is no HTTP
)

// InHead: a head is under way.
func (m *Messages) InHead() bool { return m.part == start || m.part == fields }

// BetweenChunks: a body is under way that is made of chunks, and another one, or
// the last, may be put here.
func (m *Messages) BetweenChunks() bool { return m.part == chunk && m.size == 0 }

// InChunks: a body is under way that is made of chunks.
func (m *Messages) InChunks() bool {
	return m.part == chunk || m.part == chunkData || m.part == trailers
}

// Next takes the bytes of p up to the next event, at most all of them, and says
// how many they are: none at Began, else at least one if p has one.
func (m *Messages) Next(p []byte) (n int, e Event) {
	for n < len(p) {
		switch m.part {
		case between:
			if m.From == Client && (p[n] == '\r' || p[n] == '\n') {
				n++ // RFC 9112, section 2.2: empty lines before a request are ignored
				continue
			}
			m.part, m.Head, m.last = start, Head{length: -1}, [10]byte{}
			if m.From == Client {
				return n, Began
			}
		case body, chunkData:
			took := min(m.left, uint64(len(p)-n))
			m.left -= took
			n += int(took)
			if m.left > 0 {
				return n, 0
			}
			if m.part == body {
				m.part = between
				return n, Ended
			}
			m.part = chunk
			if m.Head.EventStream {
				return n, Chunked
			}
		case endless:
			return len(p), 0
		case lost:
			return len(p), Lost
		default:
			took, e := m.lines(p[n:])
			n += took
			if e&(Lost|Preface) != 0 {
				m.part, m.line = lost, nil
				return len(p), e
			}
			if e != 0 {
				return n, e
			}
		}
	}
	return n, 0
}

// lines takes p up to the end of the line that is under way.
func (m *Messages) lines(p []byte) (n int, e Event) {
	at := bytes.IndexByte(p, '\n')
	piece := p
	if at >= 0 {
		piece = p[:at]
	}
	m.keep(piece)
	if m.part == start && !m.plausible(piece) {
		return len(p), Lost
	}
	if at < 0 {
		return len(p), 0
	}
	line := bytes.TrimSuffix(m.line, []byte("\r"))
	e = m.end(line)
	m.line, m.size = m.line[:0], 0
	if m.part == between || m.part == body || m.part == endless {
		m.line = nil
	}
	return at + 1, e
}

func (m *Messages) keep(piece []byte) {
	m.line = append(m.line, piece[:min(len(piece), maxKept-len(m.line))]...)
	m.size += len(piece)
	if len(piece) >= len(m.last) {
		copy(m.last[:], piece[len(piece)-len(m.last):])
		return
	}
	copy(m.last[:], m.last[len(piece):])
	copy(m.last[len(m.last)-len(piece):], piece)
}

// plausible: what is known of the start line can become one. What speaks another
// protocol is known as soon as possible.
func (m *Messages) plausible(piece []byte) bool {
	if m.size > maxStart || bytes.ContainsFunc(piece, func(r rune) bool { return r < ' ' && r != '\r' || r == 0x7f }) {
		return false
	}
	if m.From == Server {
		const version = "HTTP/1."
		return strings.HasPrefix(version, string(m.line[:min(len(m.line), len(version))]))
	}
	method, _, whole := bytes.Cut(m.line, []byte(" "))
	return len(method) <= 32 && (len(method) > 0 || !whole) && !bytes.ContainsFunc(method, func(r rune) bool {
		return !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || r == '-' || r == '_')
	})
}

// end takes a line that has ended; of a longer one than maxKept, its beginning.
func (m *Messages) end(line []byte) Event {
	switch m.part {
	case start:
		return m.endStart(line)
	case fields:
		if len(line) == 0 {
			return m.endHead()
		}
		if !m.field(line) {
			return Lost
		}
	case chunk:
		text, _, _ := strings.Cut(string(line), ";")
		size, err := strconv.ParseUint(strings.TrimRight(text, " \t"), 16, 63)
		switch {
		case err != nil:
			return Lost
		case size == 0:
			m.part = trailers
		default:
			m.part, m.left = chunkData, size+2
		}
	case trailers:
		if m.size <= 1 && len(line) == 0 {
			m.part = between
			return Ended
		}
	}
	return 0
}

func (m *Messages) endStart(line []byte) Event {
	if bytes.IndexByte(line, '\r') >= 0 {
		return Lost
	}
	if m.From == Server {
		if len(line) < len("HTTP/1.1 200") || line[8] != ' ' {
			return Lost
		}
		status, err := strconv.ParseUint(string(line[9:12]), 10, 16)
		if err != nil || status < 100 {
			return Lost
		}
		m.Head.Status, m.Head.minor, m.part = int(status), line[7], fields
		return 0
	}
	if string(line) == "PRI * HTTP/2.0" {
		return Preface
	}
	_, version, _ := strings.Cut(strings.TrimSuffix(string(m.last[:]), "\r"), " HTTP/1.")
	if version != "0" && version != "1" {
		return Lost
	}
	method, _, _ := strings.Cut(string(line), " ")
	m.Head.Method, m.Head.minor, m.part = method, version[0], fields
	return 0
}

// field takes a line of a head, and reports whether it is understood.
func (m *Messages) field(line []byte) bool {
	name, value, ok := strings.Cut(string(line), ":")
	if !ok {
		return m.size > maxKept // of a name that long nothing is known
	}
	value = strings.Trim(value, " \t")
	h := &m.Head
	whole := m.size <= maxKept
	switch strings.ToLower(name) {
	case "upgrade":
		for protocol := range strings.SplitSeq(value, ",") {
			h.WebSocket = h.WebSocket || h.minor == '1' && strings.EqualFold(strings.TrimSpace(protocol), "websocket")
		}
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || !whole || h.length >= 0 && h.length != int64(n) {
			return false
		}
		h.length = int64(n)
	case "transfer-encoding":
		last := value[strings.LastIndexByte(value, ',')+1:]
		h.chunked = strings.EqualFold(strings.TrimSpace(last), "chunked")
		return whole && (h.chunked || m.From == Server)
	case "content-type":
		kind, _, _ := strings.Cut(value, ";")
		h.EventStream = strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
	}
	return name != "" && name[0] != ' ' && name[0] != '\t' && name[len(name)-1] != ' '
}

// endHead decides what the body is: RFC 9112, section 6.3.
func (m *Messages) endHead() Event {
	h := &m.Head
	if h.chunked && h.length >= 0 {
		return Lost
	}
	none := m.From == Client && h.length <= 0
	if m.From == Server {
		success := h.Status/100 == 2
		switch {
		case h.Status == 101, m.Answers == "CONNECT" && success:
			m.part = endless
			return Headed
		case m.Answers == "HEAD", h.Status < 200, h.Status == 204, h.Status == 304:
			m.part = between
			return Headed | Ended
		}
		none = h.length == 0
	}
	switch {
	case h.chunked:
		m.part = chunk
	case none:
		m.part = between
		return Headed | Ended
	case h.length > 0:
		m.part, m.left = body, min(uint64(h.length), math.MaxInt64)
	default:
		m.part = endless
	}
	return Headed
}
