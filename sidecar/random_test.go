package sidecar_test

import (
	"bufio"
	"encoding/binary"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/sidecar"
)

var seed = maphash.MakeSeed()

// noise is where payloads are cut from.
var noise = func() []byte {
	b := make([]byte, 4<<20)
	c := rand.NewChaCha8([32]byte{1})
	_, _ = c.Read(b)
	return b
}()

// text is what one side has said, or the other has heard.
type text struct {
	mu    sync.Mutex
	sum   maphash.Hash
	size  int
	whole bool   // what comes now is kept beside it
	after []byte // behind the whole
}

func newText() *text {
	t := &text{}
	t.sum.SetSeed(seed)
	return t
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.whole {
		t.after = append(t.after, p...)
		return len(p), nil
	}
	t.size += len(p)
	return t.sum.Write(p)
}

// equals: t is byte by byte what other is, and is whole with it.
func (t *text) equals(other *text) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.size != other.size || t.sum.Sum64() != other.sum.Sum64() {
		return false
	}
	t.whole = true
	return true
}

// speak writes about size bytes of random frames to w, as a client (masked) or a
// server: messages whole and in fragments, of every length of length, with
// control frames in between, in pieces that end anywhere.
func speak(w io.Writer, r *rand.Rand, masked bool, size int) {
	out := bufio.NewWriterSize(w, 48<<10+r.IntN(32<<10))
	lengths := []int{0, 9, 126, 1400, 65535, 65536, 300 << 10, 1 << 20}
	fragmented := false
	for sent := 0; sent < size; {
		payload, first := r.IntN(1+lengths[r.IntN(len(lengths))]), byte(0)
		switch kind := r.IntN(4); {
		case kind == 0: // ping or pong
			payload, first = r.IntN(126), 0x89+byte(r.IntN(2))
		case fragmented: // a further fragment
			fragmented = kind != 1
		default:
			first = 1 + byte(r.IntN(2)) | byte(r.IntN(2))<<6 // text or binary, perhaps compressed
			fragmented = kind != 1
		}
		if first&0x08 == 0 && !fragmented {
			first |= 0x80
		}
		sent += writeFrame(out, r, first, masked, payload)
		if r.IntN(8) == 0 {
			_ = out.Flush()
		}
	}
	_ = out.Flush() // what is lost is missed by the other side
}

func writeFrame(w io.Writer, r *rand.Rand, first byte, masked bool, payload int) int {
	b, mask := []byte{first}, byte(0)
	if masked {
		mask = 0x80
	}
	switch {
	case payload < 126:
		b = append(b, mask|byte(payload))
	case payload < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(payload))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(payload))
	}
	if masked {
		b = binary.BigEndian.AppendUint32(b, r.Uint32())
	}
	_, _ = w.Write(b) // a bufio.Writer keeps its error
	from := r.IntN(len(noise) - payload)
	_, _ = w.Write(noise[from : from+payload])
	return len(b) + payload
}

// talk is one connection on which both sides speak at once.
type talk struct {
	number                                           uint64
	clientSaid, serverSaid, clientHeard, serverHeard *text
}

// hold has the side of p speak, and hear until the end.
func (p *peer) hold(number uint64, masked bool, size int, said, heard *text, spoken, ended *sync.WaitGroup) {
	defer ended.Done()
	_ = p.SetDeadline(time.Now().Add(5 * time.Minute))
	var both sync.WaitGroup
	both.Go(func() {
		defer spoken.Done()
		speak(io.MultiWriter(said, p), rand.New(rand.NewPCG(number, uint64(size))), masked, size)
	})
	_, _ = io.Copy(heard, p.r)
	both.Wait()
}

// Bytes are never changed: 1 GB of frames in each direction (64 MB with -short).
// Behind them the sidecar still knows where a frame ends: then the eviction gives
// each side a close frame.
func TestAGigabyteOfRandomFrames(t *testing.T) {
	size := 1 << 30
	if testing.Short() {
		size = 64 << 20
	}
	const links = 4
	for mode, ends := range map[sidecar.Mode]struct{ client, server string }{
		sidecar.WebSocket: {goodbye, "\x88\x82"},
		sidecar.TCP:       {"", ""},
	} {
		t.Run(string(mode), func(t *testing.T) {
			var spoken, ended sync.WaitGroup
			spoken.Add(2 * links)
			ended.Add(2 * links)
			talks := make(chan *talk, links)
			to := server(t, func(p *peer) {
				p.hear(upgrade)
				p.say(switching)
				a := <-talks
				p.hold(1+a.number, false, size/links, a.serverSaid, a.serverHeard, &spoken, &ended)
			})
			w := newWorld(t, sidecar.Options{Options: drain.Options{CloseWait: 100 * time.Millisecond}, To: to, Mode: mode})
			var all []*talk
			for n := range links {
				a := &talk{uint64(2 * n), newText(), newText(), newText(), newText()}
				c := w.dial()
				c.say(upgrade)
				c.hear(switching)
				talks <- a
				go c.hold(a.number, true, size/links, a.clientSaid, a.clientHeard, &spoken, &ended)
				all = append(all, a)
			}
			spoken.Wait()
			for _, a := range all {
				w.until("the server heard all that the client said", func() bool { return a.serverHeard.equals(a.clientSaid) })
				w.until("the client heard all that the server said", func() bool { return a.clientHeard.equals(a.serverSaid) })
			}
			w.emptied()
			ended.Wait()
			for _, a := range all {
				if end := string(a.clientHeard.after); end != ends.client {
					t.Errorf("at the end the client heard %q, want %q", end, ends.client)
				}
				if end := string(a.serverHeard.after); !strings.HasPrefix(end, ends.server) || len(end) != 4*len(ends.server) {
					t.Errorf("at the end the server heard %q, want %d bytes that begin with %q", end, 4*len(ends.server), ends.server)
				}
			}
		})
	}
}
