package clients

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/coder/websocket"
)

// line is one connection of a client. Who comes over has two for a moment.
type line struct {
	client int
	conn   *websocket.Conn
	hello  Hello
	// leaving: the client comes over. Belongs to the goroutine that reads.
	leaving bool

	// The rest belongs to Swarm.mu.
	pending int    // messages that were sent and not answered yet
	told    uint64 // the newest numbered message that came
	ending  bool   // the client ends it itself
	over    bool   // it has ended
	// before is the older line while it still has to tell what was said before From of
	// this one, which keeps what came too early.
	before *line
	early  []uint64
	after  *line
}

// message is what an instance says that is no echo: numbered, or an ask.
type message struct {
	Type string `json:"type"`
	ID   uint64 `json:"id"`
}

// ask is the type of the message that asks a client to come over.
const ask = "reconnect"

// Messages is what became of the messages of all clients.
type Messages struct {
	// Heard are those with numbers that arrived, each counted once, in their order; Twice
	// those that came on both connections; Lost those in between that never came.
	Heard, Twice, Lost int
	// Unanswered are messages of clients whose connection ended before the echo came.
	Unanswered int
}

// inbox is what one client has heard, whatever connection it came on. The zero value is
// that of a client that never was connected.
type inbox struct {
	known bool   // was connected
	seen  uint64 // the newest message, heard or lost
	Messages
}

// take counts a message.
func (b *inbox) take(id uint64) {
	if id <= b.seen {
		b.Twice++
		return
	}
	b.miss(id)
	b.Heard++
	b.seen = id
}

// miss counts what does not come any more because the next message is from.
func (b *inbox) miss(from uint64) {
	if from > b.seen+1 {
		b.Lost += int(from - b.seen - 1)
		b.seen = from - 1
	}
}

// comeOver has a client that is asked open its new connection while the old one works on,
// and end that when nothing is pending there and all was told that the new one will not tell.
func (s *Swarm) comeOver(ctx context.Context, old *line, rng *rand.Rand) {
	next := s.arrive(ctx, old.client, 0, old, rng)
	if next == nil {
		return
	}
	s.running.Go(func() { s.live(ctx, next, rng) })
	err := s.wait(ctx, func() bool {
		old.ending = old.over || next.before == nil && old.pending == 0
		return old.ending
	})
	if err == nil {
		_ = old.conn.Close(websocket.StatusNormalClosure, "")
	}
}

// known reports whether the client was connected before.
func (s *Swarm) known(client int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inboxes[client].known
}

// joined has the new connection be the client's: from now on it sends there.
func (s *Swarm) joined(client int, conn *websocket.Conn, h Hello, before *line) *line {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &line{client: client, conn: conn, hello: h, before: before}
	if h.From > 0 {
		l.told = h.From - 1
	}
	if box := &s.inboxes[client]; !box.known {
		box.known, box.seen = true, l.told
	}
	if before != nil {
		before.after = l
	}
	s.release(l)
	s.lines[client] = l
	s.counts.add(h, 1)
	s.append(Record{At: time.Now(), Client: client, Kind: Joined, Hello: h})
	return l
}

// tell takes a numbered message.
func (s *Swarm) tell(l *line, id uint64) {
	l.told = max(l.told, id)
	if l.before != nil {
		l.early = append(l.early, id)
		return
	}
	s.inboxes[l.client].take(id)
	s.advance(l)
}

// advance has the newer line of a client go on, if there is one that waits for this.
func (s *Swarm) advance(l *line) {
	if l.after != nil && l.after.before == l {
		s.release(l.after)
	}
}

// release takes what came too early, once the older line has told all that was before it,
// or has ended; what it had not told then is lost.
func (s *Swarm) release(l *line) {
	if b := l.before; b != nil && !b.over && b.told+1 < l.hello.From {
		return
	}
	box := &s.inboxes[l.client]
	box.miss(l.hello.From)
	for _, id := range l.early {
		box.take(id)
	}
	l.before, l.early = nil, nil
	s.wake()
}

// answered counts an echo.
func (s *Swarm) answered(l *line) {
	l.pending--
	if l.pending == 0 && l.after != nil {
		s.wake()
	}
}

// end records why a connection ended; the end of Run is no reason.
func (s *Swarm) end(l *line, err error, ofRun bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.over = true
	s.advance(l)
	s.wake()
	if s.lines[l.client] == l {
		s.lines[l.client] = nil
	}
	s.counts.add(l.hello, -1)
	if ofRun {
		return
	}
	r := Record{At: time.Now(), Client: l.client, Kind: Ended, Hello: l.hello}
	if code := websocket.CloseStatus(err); !l.ending || code == websocket.StatusServiceRestart {
		r.Kind, r.Code, r.Cause = Left, code, err.Error()
		s.unanswered += l.pending
		s.opt.Logger.Debug("disconnected", "client", l.client, "instance", l.hello.Instance, "code", int(r.Code), "cause", err)
	}
	s.append(r)
}

// Messages is what became of all messages so far.
func (s *Swarm) Messages() Messages {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := Messages{Unanswered: s.unanswered}
	for _, b := range s.inboxes {
		all.Heard += b.Heard
		all.Twice += b.Twice
		all.Lost += b.Lost
	}
	return all
}
