package sidecar

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

const (
	get      = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
	ok       = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	upgrade  = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nupgrade: h2c, WebSocket\r\n\r\n"
	switches = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
	hints    = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
)

// line is what one side says in a dialogue.
type line struct {
	server bool
	text   string
}

func client(text ...string) line { return line{false, strings.Join(text, "")} }
func server(text ...string) line { return line{true, strings.Join(text, "")} }

// frame builds one frame; its payload looks like headers.
func frame(first byte, masked bool, payload int) []byte {
	var key *[4]byte
	if masked {
		key = new([4]byte)
	}
	return wsframe.Append(nil, first, key, bytes.Repeat([]byte{0x88}, payload))
}

// follow has the dialogue take the lines in pieces of at most size.
func follow(t *testing.T, lines []line, size int) *dialogue {
	t.Helper()
	d := newDialogue()
	for _, l := range lines {
		for piece := range slices.Chunk([]byte(l.text), size) {
			if !l.server {
				for len(piece) > 0 {
					n, _ := d.client(piece)
					piece = piece[n:]
				}
				continue
			}
			for len(piece) > 0 {
				n, _ := d.server(piece)
				if n < 1 || n > len(piece) {
					t.Fatalf("server took %d of %d bytes", n, len(piece))
				}
				piece = piece[n:]
			}
		}
	}
	return d
}

func TestHowAConnectionCanEnd(t *testing.T) {
	message := string(frame(0x81, false, 300))
	masked := string(frame(0x82, true, 70000))
	for name, tc := range map[string]struct {
		lines []line
		want  farewell
		tell  bool // the server can be told by a frame
	}{
		"nothing yet":                      {nil, byFIN, false},
		"plain HTTP":                       {[]line{client(get), server(ok)}, byFIN, false},
		"a response under way":             {[]line{client(get), server(ok[:len(ok)-1])}, later, false},
		"an unanswered request":            {[]line{client(get)}, later, false},
		"asked":                            {[]line{client(upgrade)}, later, false},
		"half an answer":                   {[]line{client(upgrade), server(switches[:50])}, later, false},
		"hints, then half an answer":       {[]line{client(upgrade), server(hints, switches[:9])}, later, false},
		"switched":                         {[]line{client(upgrade), server(switches)}, byFrame, true},
		"after hints":                      {[]line{client(upgrade), server(hints, switches)}, byFrame, true},
		"after other requests":             {[]line{client(get), server(ok), client(get), server(ok), client(upgrade), server(switches, message)}, byFrame, true},
		"after a refused one":              {[]line{client(upgrade), server(ok), client(upgrade), server(switches)}, byFrame, true},
		"in a frame":                       {[]line{client(upgrade), server(switches, message[:99])}, later, true},
		"in a message, between frames":     {[]line{client(upgrade), server(switches, string(frame(0x01, false, 5)))}, later, true},
		"behind a message of fragments":    {[]line{client(upgrade), server(switches, string(frame(0x01, false, 5)), string(frame(0x89, false, 1)), string(frame(0x80, false, 5)))}, byFrame, true},
		"the client in a frame":            {[]line{client(upgrade), server(switches), client(masked[:99])}, byFrame, false},
		"the client behind a frame":        {[]line{client(upgrade), server(switches), client(masked)}, byFrame, true},
		"the client has closed":            {[]line{client(upgrade), server(switches), client(string(frame(0x88, true, 2)))}, byFrame, false},
		"the server has closed":            {[]line{client(upgrade), server(switches, string(frame(0x88, false, 2)))}, unneeded, true},
		"an illegal frame":                 {[]line{client(upgrade), server(switches, string(frame(0x87, false, 2)))}, byFIN, true},
		"a client's illegal frame":         {[]line{client(upgrade), server(switches), client(message)}, byFrame, false},
		"refused":                          {[]line{client(upgrade), server("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")}, byFIN, false},
		"another protocol":                 {[]line{client(upgrade), server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n")}, byFIN, false},
		"a request for another protocol":   {[]line{client(strings.Replace(upgrade, "WebSocket", "x", 1)), server(switches)}, byFIN, false},
		"an answer that is no HTTP":        {[]line{client(upgrade), server("what?")}, byFIN, false},
		"a switch that nobody asked for":   {[]line{server(switches)}, byFIN, false},
		"a request that is POSTed":         {[]line{client(strings.Replace(upgrade, "GET", "POST", 1)), server(switches)}, byFIN, false},
		"HTTP/1.0":                         {[]line{client(strings.Replace(upgrade, "1.1", "1.0", 1)), server(switches)}, byFIN, false},
		"HTTP/2":                           {[]line{client("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), server("\x00\x00\x00\x04\x00")}, byFIN, false},
		"20 KiB of cookies":                {[]line{client(strings.Replace(upgrade, "Host: x", "Cookie: "+strings.Repeat("x", 20<<10), 1)), server(switches)}, byFrame, true},
		"an address of 20 KiB":             {[]line{client(strings.Replace(upgrade, "/ws", "/"+strings.Repeat("x", 20<<10), 1)), server(switches)}, byFrame, true},
		"an answer with a long header":     {[]line{client(upgrade), server(strings.Replace(switches, "\r\n", "\r\nX: "+strings.Repeat("x", 20<<10)+"\r\n", 1))}, byFrame, true},
		"an empty line before it":          {[]line{client("\r\n", upgrade), server(switches)}, byFrame, true},
		"a truncated request":              {[]line{client(upgrade[:len(upgrade)-1]), server(switches)}, byFIN, false},
		"a frame sent before the answer":   {[]line{client(upgrade, masked), server(switches)}, byFrame, true},
		"half a frame before the answer":   {[]line{client(upgrade, masked[:99]), server(switches)}, byFrame, false},
		"a frame before a refusal":         {[]line{client(upgrade, masked), server(ok)}, byFIN, false},
		"a second request in one breath":   {[]line{client(get, upgrade), server(ok, switches)}, byFrame, true},
		"a body, then a WebSocket":         {[]line{client("POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\nGET / H", upgrade), server(ok, switches)}, byFrame, true},
		"chunks, then a WebSocket":         {[]line{client("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nGET\r\n0\r\nX: y\r\n\r\n", upgrade), server(ok, switches)}, byFrame, true},
		"HEAD, then a WebSocket":           {[]line{client("HEAD / HTTP/1.1\r\n\r\n", upgrade), server(ok[:len(ok)-2], switches)}, byFrame, true},
		"304, then a WebSocket":            {[]line{client(get, upgrade), server("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", switches)}, byFrame, true},
		"100, then a WebSocket":            {[]line{client("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"), server("HTTP/1.1 100 Continue\r\n\r\n"), client("x"), server(ok), client(upgrade), server(switches)}, byFrame, true},
		"two lengths":                      {[]line{client("POST / HTTP/1.1\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\n")}, byFIN, false},
		"a length and chunks":              {[]line{client("POST / HTTP/1.1\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n")}, byFIN, false},
		"a server that speaks first":       {[]line{server("220 hello\r\n"), client("HELO x\r\n")}, byFIN, false},
		"a server first, then a WebSocket": {[]line{server("hello"), client(upgrade), server(switches)}, byFIN, false},
	} {
		for _, size := range []int{1, 2, 7, 1 << 20} {
			d := follow(t, tc.lines, size)
			if got, tell := d.chooseFarewell(true), d.serverCanBeTold(); got != tc.want || tell != tc.tell {
				t.Errorf("%s, in pieces of %d: farewell %d, server can be told %t; want %d, %t", name, size, got, tell, tc.want, tc.tell)
			}
		}
	}
}

// However the bytes are split, the dialogue is the same, whatever they are.
func FuzzDialogue(f *testing.F) {
	f.Add([]byte(upgrade), []byte(switches+"\x81\x00"), []byte("\x81\x80abcd"), []byte("\x88\x00"), uint8(3))
	f.Add([]byte(get), []byte(ok), []byte(upgrade), []byte(hints+switches), uint8(1))
	f.Add([]byte(upgrade), []byte("HTTP/1.1 101 \r\n\r\n"), []byte(upgrade), []byte("HTTP/1.1 1"), uint8(9))
	f.Fuzz(func(t *testing.T, a, b, c, d []byte, size uint8) {
		lines := []line{client(string(a)), server(string(b)), client(string(c)), server(string(d))}
		whole := follow(t, lines, 1<<30)
		split := follow(t, lines, max(1, int(size)))
		type end struct {
			phase    phase
			farewell farewell
			tell     bool
			closed   bool
		}
		of := func(d *dialogue) end {
			return end{d.phase, d.chooseFarewell(true), d.serverCanBeTold(), d.clientClosed()}
		}
		if of(whole) != of(split) {
			t.Fatalf("whole %+v, in pieces of %d %+v", of(whole), size, of(split))
		}
	})
}
