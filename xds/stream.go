package xds

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/sluice-proxy/sluice/internal/level"
	"github.com/sluice-proxy/sluice/xds/process"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// request is one message of a proxy, in either protocol.
type request struct {
	node    *core.Node
	typeURL string
	nonce   string // of the response it answers; empty in the first of a type
	refused bool
	message string // why it was refused

	subscribe, unsubscribe []string          // delta
	claims                 map[string]string // delta: what it holds, in the first of a type

	names   []string // state-of-the-world: everything it asks for
	version string   // the same: of the last response it accepted
}

// protocol is one of the two protocols on an open stream.
type protocol interface {
	receive() (request, error)
	send(*holding, *response) error
	// wholeState is true for the state-of-the-world protocol.
	wholeState() bool
}

// stream is one open stream. Its loop runs in the goroutine of the call.
type stream struct {
	s        *Server
	protocol protocol
	only     string // the type of a per-type service; empty for the aggregated one
	from     string // the other end of the connection
	addr     netip.AddrPort
	wake     level.Level   // there may be something to send
	closing  chan struct{} // closed to end it from outside
	ended    sync.Once

	// Set by attach, with the first request.
	peer    *peer
	process *process.Stream
	over    <-chan struct{}

	// The peer's mutex guards what follows.
	replaced bool            // a newer stream speaks for the proxy
	types    map[string]bool // the types that it has asked for
	nonces   uint64
}

// nextNonce names the next response of the stream. The peer's mutex is held.
func (st *stream) nextNonce() string {
	st.nonces++
	return strconv.FormatUint(st.nonces, 10)
}

func (st *stream) end() { st.ended.Do(func() { close(st.closing) }) }

// serve runs one stream until the proxy or the server ends it.
func (s *Server) serve(ctx context.Context, with protocol, only string) error {
	st := &stream{
		s: s, protocol: with, only: only,
		wake: level.New(), closing: make(chan struct{}), types: map[string]bool{},
	}
	if from, ok := grpcpeer.FromContext(ctx); ok {
		st.from = from.Addr.String()
		st.addr, _ = netip.ParseAddrPort(st.from) // of a pipe in memory: none
	}
	requests := make(chan request)
	failed := make(chan error, 1) // its one value is never waited for
	go func() {                   // ends when the call does: ctx is the call's, and so is receive
		for {
			r, err := with.receive()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	err := st.loop(ctx, requests, failed)
	s.detach(st, err)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// loop does one thing at a time: take a request, or see what there is to send.
func (st *stream) loop(ctx context.Context, requests <-chan request, failed <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			return status.FromContextError(context.Cause(ctx)).Err()
		case err := <-failed:
			return err
		case <-st.over:
			return status.Error(codes.Unavailable, "another process has this node id and was taken for this one; connect again")
		case <-st.closing:
			return status.Error(codes.Unavailable, "another stream has spoken for this node; connect again")
		case r := <-requests:
			if err := st.take(r); err != nil {
				return err
			}
		case <-st.wake:
		}
		if err := st.flush(); err != nil {
			return err
		}
	}
}

// take takes one request over.
func (st *stream) take(r request) error {
	if st.peer == nil {
		if r.node.GetId() == "" {
			return status.Error(codes.InvalidArgument, "the first request names no node.id; set it in the bootstrap")
		}
		st.s.attach(st, r.node)
	}
	st.process.Heard()
	if r.typeURL == "" {
		r.typeURL = st.only
	}
	if r.typeURL == "" || st.only != "" && r.typeURL != st.only {
		return status.Error(codes.InvalidArgument, "the request's type_url is missing or is not that of the service")
	}
	p := st.peer
	p.mu.Lock()
	defer p.mu.Unlock()
	defer st.s.changed.Set()
	first := !st.types[r.typeURL]
	h, err := p.ensure(st.s, r.typeURL)
	switch {
	case err != nil:
		return status.Error(codes.ResourceExhausted, err.Error())
	case st.replaced, !first && h.owner != st:
		return nil // a newer stream speaks for the proxy
	}
	if old := h.owner; first && old != nil && old != st && old.only != "" {
		old.replaced = true // it has nothing else to say
	}
	st.types[r.typeURL] = true
	if err := st.apply(h, first, r); err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	if first {
		p.retry(st) // what it claims may be what others wait for
	}
	return nil
}

// apply gives the request to the holding of its type.
func (st *stream) apply(h *holding, first bool, r request) error {
	whole := st.protocol.wholeState()
	if first {
		claims, foreign := r.claims, false
		if whole {
			claims, foreign = parseContents(r.version)
		}
		if err := h.begin(st, claims, foreign); err != nil {
			return err
		}
	} else {
		if whole && h.flight.overtakes(r.nonce) {
			return nil // an answer to an older response; that to the newest follows
		}
		h.answer(r.nonce, r.message, r.refused)
	}
	return h.subscribe(first, r)
}

// flush sends everything that can be said now.
func (st *stream) flush() error {
	for {
		next := st.next()
		if len(next) == 0 {
			return nil
		}
		for _, a := range next {
			if err := st.protocol.send(a.of, a.response); err != nil {
				return err
			}
		}
	}
}

// addressed is a response and what it is about.
type addressed struct {
	of       *holding
	response *response
}

// next makes the next responses of each type. A type that another must follow
// comes first, so that the other's goes out right after it.
func (st *stream) next() []addressed {
	snap := st.s.snapshot.Load()
	p := st.peer
	if snap == nil || p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if st.replaced {
		return nil
	}
	var own []*holding
	for _, h := range p.types {
		if h.owner == st {
			h.catchUp(snap)
			own = append(own, h)
		}
	}
	slices.SortFunc(own, func(a, b *holding) int {
		return cmp.Or(cmp.Compare(st.s.rank(a.typeURL), st.s.rank(b.typeURL)), cmp.Compare(a.typeURL, b.typeURL))
	})
	var out []addressed
	for _, h := range own {
		for r := h.respond(snap); r != nil; r = h.respond(snap) {
			out = append(out, addressed{h, r})
		}
	}
	return out
}

// rank orders the types within one flush.
func (s *Server) rank(typeURL string) int {
	switch {
	case s.resend[typeURL] != "":
		return 0
	case s.followers[typeURL]:
		return 1
	}
	return 2
}
