// Package ticket is the eight characters that an instance gives a client with its
// goodbye and that the client brings back with its next connection, so that who was let
// go is counted when he is there again. It imports the standard library only.
//
// A ticket is random and has a tag that only who has the fleet's key can make. One that
// is genuine says that some instance with that key let some client go within the last 10
// to 20 minutes. It does not say who brings it: a ticket can be passed on. And it is
// taken once by each process, not once by a fleet, since processes share nothing but the key.
package ticket

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Word is the query parameter, the header and the gRPC metadata in which a client brings
// its ticket, and the trailer in which it gets one.
const Word = "sluice-ticket"

// MinKey is how many bytes a key has at least: a shorter one can be guessed by whoever
// was given tickets.
const MinKey = 16

const (
	size = 8 // characters
	// period is how long the tag that a nonce gets stays the same. Its ticket is genuine in
	// that period and the next one.
	period = 10 * time.Minute
	// mostTaken is how many tickets of one period a process remembers to have taken; it
	// takes no others.
	mostTaken = 1 << 20

	nonceBits, tagBits = 28, 20
)

// Book gives and takes the tickets of one key. It must come from New; nil gives none and
// takes none. Its methods may be called concurrently.
type Book struct {
	key  []byte
	most int // of one period

	mu     sync.Mutex
	newest uint64                         // of the periods below
	taken  map[uint64]map[uint32]struct{} // the nonces, by period
}

// New is nil for a key that is shorter than MinKey.
func New(key string) *Book {
	if len(key) < MinKey {
		return nil
	}
	return &Book{key: []byte(key), most: mostTaken, taken: map[uint64]map[uint32]struct{}{}}
}

// Genuine is a ticket whose tag is right. The zero value is none.
type Genuine struct {
	period uint64
	nonce  uint32
}

// Give is a new ticket, empty without a key.
func (b *Book) Give(now time.Time) string {
	if b == nil {
		return ""
	}
	var random [4]byte
	_, _ = rand.Read(random[:])
	return b.text(Genuine{periodOf(now), binary.BigEndian.Uint32(random[:]) >> (32 - nonceBits)})
}

func (b *Book) text(t Genuine) string {
	bits := uint64(t.nonce)<<tagBits | uint64(b.tag(t))
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, bits)[2:])
}

func periodOf(now time.Time) uint64 { return uint64(max(now.Unix(), 0)) / uint64(period/time.Second) }

// tag is the first tagBits of an HMAC.
func (b *Book) tag(t Genuine) uint32 {
	mac := hmac.New(sha256.New, b.key)
	text := append([]byte("sluice-ticket 1 "), make([]byte, 12)...)
	binary.BigEndian.PutUint64(text[len(text)-12:], t.period)
	binary.BigEndian.PutUint32(text[len(text)-4:], t.nonce)
	_, _ = mac.Write(text)
	return binary.BigEndian.Uint32(mac.Sum(nil)) >> (32 - tagBits)
}

// Check is the ticket if it is genuine, the zero value otherwise; it may have been taken.
// Clocks may be off by a period: one that is early is genuine, too.
func (b *Book) Check(ticket string, now time.Time) Genuine {
	if b == nil || len(ticket) != size {
		return Genuine{}
	}
	text, err := base64.RawURLEncoding.DecodeString(ticket)
	if err != nil || len(text) != (nonceBits+tagBits)/8 { // it leaves line ends out
		return Genuine{}
	}
	bits := binary.BigEndian.Uint64(append([]byte{0, 0}, text...))
	nonce, tag := uint32(bits>>tagBits), uint32(bits&(1<<tagBits-1))
	at := periodOf(now)
	for _, p := range []uint64{at, at - 1, at + 1} {
		if t := (Genuine{p, nonce}); b.tag(t) == tag {
			return t
		}
	}
	return Genuine{}
}

// Take reports whether the ticket is taken now for the first time; the zero value never is.
func (b *Book) Take(t Genuine) bool {
	if b == nil || t == (Genuine{}) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.period > b.newest {
		b.newest = t.period
		for old := range b.taken {
			if old+2 < b.newest {
				delete(b.taken, old)
			}
		}
	}
	taken := b.taken[t.period]
	if _, again := taken[t.nonce]; again || len(taken) >= b.most || t.period+2 < b.newest { // what was forgotten is not taken again
		return false
	}
	if taken == nil {
		taken = map[uint32]struct{}{}
		b.taken[t.period] = taken
	}
	taken[t.nonce] = struct{}{}
	return true
}

// mark stands between a text and a ticket.
const mark = " #"

// Behind is the text with the ticket at its end, as in the reason of a close frame.
func Behind(text, ticket string) string {
	if ticket == "" {
		return text
	}
	return text + mark + ticket
}

// Cut is the text before the ticket at its end, and the ticket; empty where there is none.
func Cut(text string) (before, ticket string) {
	at := len(text) - len(mark) - size
	if at < 0 || text[at:at+len(mark)] != mark || strings.IndexFunc(text[at+len(mark):], isNone) >= 0 {
		return text, ""
	}
	return text[:at], text[at+len(mark):]
}

// isNone reports a character that no ticket has.
func isNone(r rune) bool {
	return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// Of is the ticket that a request brings in its query or its header; empty where it
// brings none, or two that differ.
func Of(r *http.Request) (ticket string) {
	said := r.Header.Values(Word)
	if strings.Contains(r.URL.RawQuery, Word) {
		said = append(said[:len(said):len(said)], r.URL.Query()[Word]...)
	}
	for _, one := range said {
		if one != said[0] {
			return ""
		}
	}
	if len(said) == 0 {
		return ""
	}
	return said[0]
}
