package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Size is how many clients there are, connected or not.
func (s *Swarm) Size() int { return s.opt.Clients }

// Records returns everything that happened so far, in the order of time.
func (s *Swarm) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.records)
}

// Connected returns how many clients are connected now.
func (s *Swarm) Connected() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Counts{s.counts.Total, maps.Clone(s.counts.Instance), maps.Clone(s.counts.Colour)}
}

// WaitFor blocks until ok holds of the counts, which it must not keep.
func (s *Swarm) WaitFor(ctx context.Context, ok func(Counts) bool) error {
	err := s.wait(ctx, func() bool { return ok(s.counts) })
	if err != nil {
		return fmt.Errorf("waiting for %d clients, %s: %w%s", s.opt.Clients, s.Connected(), err, s.lastTrouble())
	}
	return nil
}

// WaitAll blocks until every client is connected.
func (s *Swarm) WaitAll(ctx context.Context) error {
	return s.WaitFor(ctx, func(c Counts) bool { return c.Total == s.opt.Clients })
}

// What clients send begins with one of these.
const (
	pingPrefix  = "ping "  // and the time at which it was sent
	checkPrefix = "check " // and the number of the Check
)

// Check proves that connections work: every connected client sends a message and
// hears its echo. The error says how many did not; a client that is disconnected
// meanwhile counts among them. Calls must not overlap.
func (s *Swarm) Check(ctx context.Context) error {
	s.mu.Lock()
	s.check++
	text := checkPrefix + strconv.FormatUint(s.check, 10)
	clear(s.unheard)
	asked := map[int]*line{}
	for i, l := range s.lines {
		if l != nil {
			s.unheard[i] = true
			l.pending++
			asked[i] = l
		}
	}
	s.mu.Unlock()
	for _, l := range asked {
		send(ctx, l.conn, text)
	}
	if err := s.wait(ctx, func() bool { return len(s.unheard) == 0 }); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("%d of %d connections do not echo: %w", len(s.unheard), len(asked), err)
	}
	return nil
}

// heard takes what an instance said, and reports whether it asked the client to come over.
func (s *Swarm) heard(l *line, b []byte) (asked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := string(b)
	sent, ping := strings.CutPrefix(text, pingPrefix)
	switch {
	case ping:
		if ns, err := strconv.ParseInt(sent, 10, 64); err == nil {
			s.slowest = max(s.slowest, time.Since(time.Unix(0, ns)))
		}
		s.answered(l)
	case strings.HasPrefix(text, checkPrefix):
		if text == checkPrefix+strconv.FormatUint(s.check, 10) {
			delete(s.unheard, l.client)
			s.wake()
		}
		s.answered(l)
	default:
		var m message
		if json.Unmarshal(b, &m) != nil {
			return false // somebody talks to all
		}
		if m.ID > 0 {
			s.tell(l, m.ID)
		}
		if asked = m.Type == ask; asked {
			s.append(Record{At: time.Now(), Client: l.client, Kind: Asked, Hello: l.hello})
		}
	}
	return asked
}

// SlowestEcho is the longest that a ping and its echo took since it was last
// asked: what is seen at the clients may be late by about as much.
func (s *Swarm) SlowestEcho() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	slowest := s.slowest
	s.slowest = 0
	return slowest
}

func (s *Swarm) record(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(r)
}

// append keeps the records in the order of time; called with the lock held.
func (s *Swarm) append(r Record) {
	at := len(s.records)
	for at > 0 && s.records[at-1].At.After(r.At) {
		at--
	}
	s.records = slices.Insert(s.records, at, r)
	s.wake()
}

// wake tells those that wait to look again; called with the lock held.
func (s *Swarm) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// wait blocks until ok, which is called with the lock held, or ctx ends.
func (s *Swarm) wait(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		if ok() {
			s.mu.Unlock()
			return nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lastTrouble is why the newest refused or abnormally ended client is where it is.
func (s *Swarm) lastTrouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range slices.Backward(s.records) {
		if r.Kind == Refused || r.Kind == Left && !r.Planned() {
			return fmt.Sprintf(" (last trouble: client %d %s: %s)", r.Client, r.Kind, r.Cause)
		}
	}
	return ""
}
