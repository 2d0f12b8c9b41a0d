//go:build go1.26

package drain

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// wire is a socket whose peer notes what it reads. Use it in a bubble.
type wire struct {
	*socket
	gate *Gate
	got  bytes.Buffer
	peer net.Conn
}

func newWire(t *testing.T) *wire {
	near, far := net.Pipe()
	w := &wire{gate: New(Options{}), peer: far}
	w.socket = &socket{stream: stream{Conn: near}}
	conn, err := w.gate.admit(origin{}, w.socket, ticket.Genuine{})
	if err != nil {
		t.Fatal(err)
	}
	w.conn = conn
	go func() { _, _ = io.Copy(&w.got, far) }()
	return w
}

func (w *wire) write(t *testing.T, p []byte) {
	t.Helper()
	if n, err := w.Write(p); n != len(p) || err != nil {
		t.Fatalf("write returned %d, %v; want %d, nil", n, err, len(p))
	}
}

func (w *wire) evict(t *testing.T) {
	t.Helper()
	mustOrder(t, w.gate, 1, new(0), 0, 0)
	time.Sleep(time.Nanosecond)
	synctest.Wait()
}

// Wherever the eviction falls, the goodbye stands behind the message (or the response
// head) that was under way, and behind a frame of it if it takes longer than CloseWait;
// what is written after it fails.
func TestGoodbyeStandsBetweenTwoMessages(t *testing.T) {
	before := slices.Concat([]byte(upgraded), frame(0x81, 3), frame(0x02, 200))
	after := slices.Concat(frame(0x89, 1), frame(0x80, 4), frame(0x81, 1))
	all := slices.Concat(before, after)
	whole := func(at int) bool {
		var f frames
		f.follow(all[:at])
		return !f.InMessage()
	}
	for cut := range len(all) {
		for _, late := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t)
				if cut > 0 {
					w.write(t, all[:cut])
				}
				w.evict(t)
				end := 0
				for _, at := range boundaries(all, false, 1) {
					if end = at; at >= cut && (late || whole(at)) {
						break
					}
				}
				want := string(all[:end]) + wsframe.ServiceRestart
				synctest.Wait()
				if late && end > cut { // nothing can be told in the middle of a frame
					want = string(all[:cut])
				}
				if late {
					time.Sleep(time.Second + time.Millisecond)
				}
				synctest.Wait()
				n, err := w.Write(all[cut:])
				if len(want) == cut {
					if n != 0 || !errors.Is(err, ErrEvicted) || !errors.Is(err, net.ErrClosed) {
						t.Fatalf("evicted after %d bytes, which are no frame: write returned %d, %v", cut, n, err)
					}
				} else if n != end-cut || end < len(all) && !errors.Is(err, ErrEvicted) || end == len(all) && err != nil {
					t.Fatalf("evicted after %d bytes write returned %d, %v; want %d", cut, n, err, end-cut)
				}
				if n, err = w.Write(frame(0x81, 9)); n != 0 || !errors.Is(err, ErrEvicted) {
					t.Fatalf("after the goodbye write returned %d, %v", n, err)
				}
				_ = w.Close()
				synctest.Wait()
				if w.got.String() != want {
					t.Fatalf("evicted after %d bytes (late %v) the peer read %q, want %q", cut, late, w.got.String(), want)
				}
				if s := w.gate.Status(); s.Evicted != 1 || s.Lingering != 0 {
					t.Fatalf("status %+v, want 1 evicted and gone", s)
				}
			})
		}
	}
}

func TestNoSecondCloseFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t)
		own := slices.Concat([]byte(upgraded), frame(0x88, 2))
		w.write(t, own)
		w.evict(t)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !bytes.Equal(w.got.Bytes(), own) {
			t.Errorf("the peer read %q, want the application's close frame only", w.got.Bytes())
		}
		if w.gate.lingering != 0 {
			t.Errorf("%d closing after CloseWait", w.gate.lingering)
		}
	})
}
