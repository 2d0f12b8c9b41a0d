package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Handover is a sidecar that stands still, as JSON: for a process that goes on in its
// place and has its descriptors.
type Handover struct {
	Gate        drain.Memory `json:"gate"`
	Unreachable uint64       `json:"unreachable"`
	Links       []handed     `json:"links"`
}

// handed is one connection.
type handed struct {
	Client   uintptr   `json:"client"` // descriptors
	Server   uintptr   `json:"server"`
	Held     bool      `json:"held,omitempty"`
	Busy     time.Time `json:"busy,omitzero"` // since when a request is under way
	ToClient []byte    `json:"to_client,omitempty"`
	ToServer []byte    `json:"to_server,omitempty"`
	Talk     *standing `json:"talk,omitempty"`
}

// Freeze has the sidecar stand still, between two bytes of each connection, until
// thaw is called: nothing is accepted, passed on or let go. It waits for clients whose
// connection to the server is being made, and refuses where the gate does. Connections
// that have had their last word are not handed over.
func (s *Sidecar) Freeze(ctx context.Context) (h Handover, thaw func(), err error) {
	f := &s.flow
	f.mu.Lock()
	ln := s.listener
	f.mu.Unlock()
	if ln == nil {
		return h, nil, errors.New("it does not serve yet")
	}
	f.frozen.Store(true)
	melt := []func(){f.thaw}
	unfreeze := func() {
		for i := len(melt) - 1; i >= 0; i-- {
			melt[i]()
		}
	}
	defer func() {
		if err != nil {
			unfreeze()
		}
	}()
	_ = ln.SetDeadline(past)
	melt = append(melt, func() { _ = ln.SetDeadline(time.Time{}) })
	if err = f.await(ctx, func() bool { return f.paused && f.arriving == 0 }); err != nil {
		return h, nil, fmt.Errorf("clients are still being connected to the server: %w", err)
	}
	f.mu.Lock()
	all := make([]*link, 0, len(f.links))
	for l := range f.links {
		all = append(all, l)
	}
	f.mu.Unlock()
	for _, l := range all {
		_, _ = l.client.SetDeadline(past), l.server.SetDeadline(past)
	}
	melt = append(melt, func() {
		for _, l := range all {
			l.thaw()
		}
	})
	if err = f.await(ctx, func() bool { return f.standing == f.running }); err != nil {
		return h, nil, fmt.Errorf("connections do not stand still: %w", err)
	}
	for _, l := range all {
		l.up.Lock()
		l.down.Lock()
		l.mu.Lock()
	}
	melt = append(melt, func() {
		for _, l := range all {
			l.mu.Unlock()
			l.down.Unlock()
			l.up.Unlock()
		}
	})
	memory, release, err := s.Gate.Freeze()
	if err != nil {
		return h, nil, err
	}
	melt = append(melt, release)
	h = Handover{Gate: memory, Unreachable: s.unreachable.Load()}
	for _, l := range all {
		if !l.ended && !l.hung && !l.said && !l.over && !l.leaving.Load() {
			h.Links = append(h.Links, l.hand())
		}
	}
	return h, unfreeze, nil
}

func (l *link) hand() handed {
	h := handed{Client: descriptor(l.client), Server: descriptor(l.server), Held: l.held.Load() != nil, ToClient: l.toClientRest, ToServer: l.toServerRest}
	if l.busy {
		h.Busy = l.since
	}
	if l.talk != nil {
		h.Talk = l.talk.stand()
	}
	return h
}

// thaw has the link go on where it stood.
func (l *link) thaw() {
	_, _ = l.client.SetDeadline(time.Time{}), l.server.SetDeadline(time.Time{})
	l.mu.Lock()
	if l.hung {
		_ = l.server.SetDeadline(time.Now().Add(l.car.CloseWait()))
	}
	l.mu.Unlock()
	l.flush(&l.down, l.client, &l.toClientRest)
	l.flush(&l.up, l.server, &l.toServerRest)
}

// descriptor is the number of a connection's descriptor.
func descriptor(c conn) (number uintptr) {
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { number = fd })
	}
	return number
}

// Resume returns the Sidecar that goes on with what another one has handed over: its
// Serve begins with those connections.
func Resume(opt Options, h Handover) (*Sidecar, error) {
	s, err := New(opt)
	if err != nil {
		return nil, err
	}
	s.unreachable.Store(h.Unreachable)
	var held []*link
	var hooks []drain.Hooks
	for _, handed := range h.Links {
		l := &link{car: s, toClientRest: handed.ToClient, toServerRest: handed.ToServer}
		if l.client, err = inherited(handed.Client); err != nil {
			return nil, err
		}
		if l.server, err = inherited(handed.Server); err != nil {
			return nil, err
		}
		if handed.Talk != nil {
			l.talk = handed.Talk.resume()
		}
		if handed.Held {
			held, hooks = append(held, l), append(hooks, drain.Hooks{Close: l.leave, Remote: l.client.RemoteAddr()})
		}
		if !handed.Busy.IsZero() {
			l.busy, l.since = true, handed.Busy
			s.requests.count(l.client.RemoteAddr(), 1)
		}
		s.resumed = append(s.resumed, l)
	}
	gate, conns := drain.Resume(s.opt.Options, h.Gate, hooks)
	s.Gate = gate
	for i, l := range held {
		l.hold(conns[i])
	}
	for _, l := range s.resumed {
		if l.busy {
			l.long = time.AfterFunc(max(0, s.opt.Long-time.Since(l.since)), l.lasts)
		}
	}
	return s, nil
}

func inherited(fd uintptr) (conn, error) {
	f := os.NewFile(fd, "connection")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("a connection that was handed over: %w", err)
	}
	return c.(conn), nil
}
