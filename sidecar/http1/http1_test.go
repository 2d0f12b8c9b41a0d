package http1_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/sluice-proxy/sluice/sidecar/http1"
)

// step is an event and where it came.
type step struct {
	at    int
	event http1.Event
	head  http1.Head
}

// follow returns the events of all, in pieces of at most size, without their heads
// where they do not belong to one.
func follow(t *testing.T, from http1.Side, all []byte, size int) (steps []step) {
	t.Helper()
	m := http1.Messages{From: from, Answers: "GET"}
	for at := 0; at < len(all); {
		end := min(at+size, len(all))
		for at < end {
			n, e := m.Next(all[at:end])
			if n < 0 || at+n > end || n == 0 && e != http1.Began {
				t.Fatalf("%d of %d bytes were taken, event %d", n, end-at, e)
			}
			at += n
			if e&(http1.Lost|http1.Preface) != 0 {
				return append(steps, step{event: e})
			}
			if e != 0 {
				steps = append(steps, step{at, e, m.Head})
			}
		}
	}
	return steps
}

// However the bytes are split, what comes of them is the same, and what it takes
// for requests net/http takes for the same ones.
func FuzzRequests(f *testing.F) {
	f.Add([]byte("\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcHEAD / HTTP/1.0\r\n\r\n"), uint8(1))
	f.Add([]byte("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c, WebSocket\r\n\r\n"), uint8(7))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), uint8(2))
	f.Add([]byte("POST / HTTP/1.1\nHost: x\nContent-Length: 1\nContent-Length: 1\n\nxG"), uint8(3))
	f.Fuzz(func(t *testing.T, all []byte, size uint8) {
		whole, split := follow(t, http1.Client, all, len(all)+1), follow(t, http1.Client, all, 1+int(size))
		if len(whole) != len(split) {
			t.Fatalf("whole %+v, split %+v", whole, split)
		}
		for i := range whole {
			if whole[i] != split[i] {
				t.Fatalf("whole %+v, split %+v", whole, split)
			}
		}
		theirs := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(all, "\r\n")))
		for _, s := range whole {
			if s.event&http1.Headed == 0 {
				continue
			}
			r, err := http.ReadRequest(theirs)
			if err != nil {
				return // net/http is stricter about what it serves
			}
			if r.Method != s.head.Method {
				t.Fatalf("a request is %s, net/http says %s", s.head.Method, r.Method)
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			for {
				b, err := theirs.Peek(1)
				if err != nil || b[0] != '\r' && b[0] != '\n' {
					break
				}
				_, _ = theirs.Discard(1)
			}
		}
	})
}

func FuzzResponses(f *testing.F) {
	f.Add([]byte("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n"), uint8(1))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.0 200 OK\r\n\r\nfor ever"), uint8(5))
	f.Fuzz(func(t *testing.T, all []byte, size uint8) {
		whole, split := follow(t, http1.Server, all, len(all)+1), follow(t, http1.Server, all, 1+int(size))
		if len(whole) != len(split) {
			t.Fatalf("whole %+v, split %+v", whole, split)
		}
		for i := range whole {
			if whole[i] != split[i] {
				t.Fatalf("whole %+v, split %+v", whole, split)
			}
		}
	})
}
