// Package process tells apart the processes behind one node id. Nothing in what an Envoy
// says does that: two with a copied bootstrap, or the generations of a hot restart, send
// the same node. But all streams of one process share a connection, or have connections on
// which no two streams are of one kind.
//
// A new connection is taken for its process, connected again, until both it and an older
// one are known to live at once: an older connection that only dies is silent, and its end
// is noticed after 8 s. Then they are two processes, and all their streams have to begin
// anew, each under its own name.
package process

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lateWords is how long after a newer connection has come the words of an older one
	// may have been on their way, or lain in a buffer.
	lateWords = 2 * time.Second
	// aliveAfter is how long a dead connection can stay unnoticed, and a little more.
	aliveAfter = 10 * time.Second
	// retention is how long the name of a process that is lost is kept for its return.
	retention = 24 * time.Hour
	maxLost   = 20_000 // lost processes that are remembered
)

// Book knows the processes of every node id. Its methods may be called concurrently.
type Book struct {
	mu     sync.Mutex
	watch  []func()
	nodes  map[string][]*Process // by node id
	names  map[string]*Process
	swept  time.Time
	opened uint64
}

// Process is one process.
type Process struct {
	node, name string
	contested  atomic.Bool

	// The book's mutex guards the rest.
	connections map[string]*connection // by the address at the other end
	last        string                 // the newest connection, open or not
	lost        time.Time              // zero while a stream is open
	contest     time.Time              // since when contested
}

// connection is one that has streams open.
type connection struct {
	addr    string
	number  uint64 // newer ones have greater ones
	heard   atomic.Int64
	streams map[*Stream]struct{}
}

// Stream is one open stream of a process.
type Stream struct {
	Process *Process
	book    *Book
	kind    string
	from    *connection
	over    chan struct{}
	ended   bool // the book's mutex guards it
}

// New returns a book that knows nobody.
func New() *Book {
	return &Book{nodes: map[string][]*Process{}, names: map[string]*Process{}, swept: time.Now()}
}

// Watch has f called whenever Contested may say something else. f must not block.
func (b *Book) Watch(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watch = append(b.watch, f)
}

// Node is the id that the process says, Name a name of its own: the id, or the id and a
// number when several share it. A process that was lost and returns has the name of one
// that is lost.
func (p *Process) Node() string { return p.node }

// Name is unique among all processes.
func (p *Process) Name() string { return p.name }

// Contested reports whether two connections speak for the process at once, so that it is
// not known yet whether they are two processes.
func (p *Process) Contested() bool { return p.contested.Load() }

// Open begins a stream of a kind that came from addr. Close ends it.
func (b *Book) Open(node, addr, kind string) *Stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.sweep(now)
	p := b.find(node, addr, kind)
	c := p.connections[addr]
	if c == nil {
		b.opened++
		c = &connection{addr: addr, number: b.opened, streams: map[*Stream]struct{}{}}
		p.connections[addr] = c
	}
	s := &Stream{Process: p, book: b, kind: kind, from: c, over: make(chan struct{})}
	c.streams[s] = struct{}{}
	c.heard.Store(now.UnixNano())
	p.last, p.lost = addr, time.Time{}
	b.judge(p, now)
	return s
}

// Over is closed when the stream has to be ended, so that the proxy begins it anew.
func (s *Stream) Over() <-chan struct{} { return s.over }

// Heard records that the proxy has said something on the stream.
func (s *Stream) Heard() {
	now := time.Now()
	s.from.heard.Store(now.UnixNano())
	if s.Process.contested.Load() {
		s.book.mu.Lock()
		defer s.book.mu.Unlock()
		s.book.judge(s.Process, now)
	}
}

// Close ends the stream.
func (s *Stream) Close() {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	now := time.Now()
	p := s.Process
	delete(s.from.streams, s)
	if len(s.from.streams) == 0 && p.connections[s.from.addr] == s.from {
		delete(p.connections, s.from.addr)
	}
	if len(p.connections) == 0 && p.lost.IsZero() {
		p.lost = now
	}
	s.book.judge(p, now)
}

// find is the process that a stream belongs to: the one of its connection, one that has no
// stream of the kind, one that is lost; else the one that was heard longest ago, which it
// then contests.
func (b *Book) find(node, addr, kind string) *Process {
	all := b.nodes[node]
	var lost, quiet *Process
	for _, p := range all {
		if p.last == addr || p.connections[addr] != nil {
			return p
		}
		if !p.lost.IsZero() && lost == nil {
			lost = p
		}
		if p.lost.IsZero() && (quiet == nil || p.heard() < quiet.heard()) {
			quiet = p
		}
	}
	for _, p := range all {
		if p.lost.IsZero() && len(p.speakers(kind)) == 0 {
			return p
		}
	}
	switch {
	case lost != nil:
		return lost
	case quiet != nil:
		return quiet
	}
	return b.add(node)
}

// add makes a process with the first free name.
func (b *Book) add(node string) *Process {
	name := node
	for n := 2; b.names[name] != nil; n++ {
		name = fmt.Sprintf("%s (%d)", node, n)
	}
	p := &Process{node: node, name: name, connections: map[string]*connection{}, lost: time.Now()}
	b.nodes[node], b.names[name] = append(b.nodes[node], p), p
	return p
}

// heard is when the process has said something last.
func (p *Process) heard() (newest int64) {
	for _, c := range p.connections {
		newest = max(newest, c.heard.Load())
	}
	return newest
}

// speakers lists the connections that have a stream of the kind, the newest last.
func (p *Process) speakers(kind string) []*connection {
	var out []*connection
	for _, c := range p.connections {
		for s := range c.streams {
			if s.kind == kind && !s.ended {
				out = append(out, c)
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b *connection) int { return int(a.number) - int(b.number) })
	return out
}

// rivals are two connections that have streams of one kind, the older first; nil when there
// are none.
func (p *Process) rivals() (older, newer *connection) {
	if len(p.connections) < 2 {
		return nil, nil
	}
	for _, c := range p.connections {
		for s := range c.streams {
			if all := p.speakers(s.kind); len(all) > 1 {
				return all[0], all[len(all)-1]
			}
		}
	}
	return nil, nil
}

// judge sees whether the process is contested, and parts what are two. b.mu is held.
func (b *Book) judge(p *Process, now time.Time) {
	older, newer := p.rivals()
	was := !p.contest.IsZero()
	switch {
	case older == nil:
		p.contest = time.Time{}
	case !was:
		p.contest = now
		time.AfterFunc(aliveAfter, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.judge(p, time.Now())
		})
	default:
		late := p.contest.Add(lateWords).UnixNano()
		if now.Sub(p.contest) >= aliveAfter || older.heard.Load() >= late && newer.heard.Load() >= late {
			b.part(p, older, newer)
			p.contest = time.Time{}
		}
	}
	if is := !p.contest.IsZero(); is != was {
		p.contested.Store(is)
		for _, f := range b.watch {
			f()
		}
	}
}

// part makes newer the connection of another process, one that is lost if there is any, and
// has all streams of both begin anew: each was taken for the other's.
func (b *Book) part(p *Process, older, newer *connection) {
	var other *Process
	for _, q := range b.nodes[p.node] {
		if !q.lost.IsZero() {
			other = q
			break
		}
	}
	if other == nil {
		other = b.add(p.node)
	}
	for _, c := range p.connections {
		for s := range c.streams {
			if !s.ended {
				s.ended = true
				close(s.over)
			}
		}
	}
	delete(p.connections, newer.addr)
	other.last, p.last = newer.addr, older.addr
}

// sweep forgets processes that are lost for long.
func (b *Book) sweep(now time.Time) {
	if now.Sub(b.swept) < time.Minute {
		return
	}
	b.swept = now
	var lost []*Process
	for _, p := range b.names {
		if !p.lost.IsZero() {
			lost = append(lost, p)
		}
	}
	slices.SortFunc(lost, func(a, b *Process) int { return a.lost.Compare(b.lost) })
	for i, p := range lost {
		if i >= len(lost)-maxLost && now.Sub(p.lost) <= retention {
			return
		}
		delete(b.names, p.name)
		b.nodes[p.node] = slices.DeleteFunc(b.nodes[p.node], func(q *Process) bool { return q == p })
		if len(b.nodes[p.node]) == 0 {
			delete(b.nodes, p.node)
		}
	}
}
