// Package xds tells Envoys what to do: it streams one published set of
// resources to every proxy that asks, and knows what each of them has
// acknowledged. It knows nothing of services or rollouts.
//
// Versions are hashes of the content, so that two processes, or one before and
// after a restart, say the same version for the same bytes and a reconnecting
// proxy is sent nothing. A proxy is never told to remove what this process did
// not publish itself, never sent another version of a write-once resource, and
// never told to use a resource before it has acknowledged what that needs.
package xds

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/sluice-proxy/sluice/internal/level"
	"github.com/sluice-proxy/sluice/xds/process"
	"github.com/sluice-proxy/sluice/xds/resource"
)

const (
	// forgetAfter is how long a proxy that is no longer connected is shown.
	forgetAfter = time.Hour
	// maxLost bounds how many of them there are; the longest lost go first.
	maxLost = 10_000
)

// Options of a Server. All types are full type URLs.
type Options struct {
	Logger *slog.Logger // required
	// WriteOnce types: once a proxy holds some version of a resource, it is
	// never sent another one nor its removal. Each goes in a response of its own.
	WriteOnce []string
	// OnePerResponse types: each resource goes in a response of its own, so that a bad one
	// is refused alone. Those of which some proxy has acknowledged the very bytes go together;
	// when one refuses that, each goes alone again.
	OnePerResponse []string
	// Resend maps a type to the one that must follow: when a resource of the
	// first is sent, the one of the second with the same name is sent again
	// right after, even if unchanged (a modified cluster waits for its endpoints).
	Resend map[string]string
	// Vary maps a type, of which a proxy that has refused some bytes takes the same bytes
	// for no change and acknowledges them, to other bytes that mean the same: the n-th, from 1.
	Vary map[string]func(body []byte, n int) []byte
	// Extensions are the type URLs that a resource may need (see resource.Resource).
	Extensions []string
	// Processes knows which process a stream is of; nil is a book of its own.
	Processes *process.Book
}

// Server is an xDS management server: delta and state-of-the-world, aggregated
// and per type. Its methods may be called concurrently.
type Server struct {
	log            *slog.Logger
	writeOnce      map[string]bool
	onePerResponse map[string]bool
	resend         map[string]string
	followers      map[string]bool // the types that follow another
	vary           map[string]func(body []byte, n int) []byte
	extensions     map[string]bool
	processes      *process.Book

	publish  sync.Mutex // orders publishers
	snapshot atomic.Pointer[snapshot]
	changed  level.Level

	mu      sync.Mutex // guards what follows; taken before a peer's
	byName  map[string]*peer
	place   uint64 // of the newest peer
	streams map[*stream]struct{}
}

// New returns a server that answers nobody before the first Publish.
func New(o Options) *Server {
	s := &Server{
		log:            o.Logger,
		writeOnce:      map[string]bool{},
		onePerResponse: map[string]bool{},
		resend:         maps.Clone(o.Resend),
		followers:      map[string]bool{},
		changed:        level.New(),
		vary:           maps.Clone(o.Vary),
		extensions:     map[string]bool{},
		byName:         map[string]*peer{},
		processes:      cmp.Or(o.Processes, process.New()),
		streams:        map[*stream]struct{}{},
	}
	s.processes.Watch(s.changed.Set)
	for _, t := range o.WriteOnce {
		s.writeOnce[t], s.onePerResponse[t] = true, true
	}
	for _, t := range o.Extensions {
		s.extensions[t] = true
	}
	for _, t := range o.Resend {
		s.followers[t] = true
	}
	for _, t := range o.OnePerResponse {
		s.onePerResponse[t] = true
	}
	return s
}

// Publish makes set the whole of what proxies should hold; the newest set wins. Of two
// resources with the same Ref the later counts. Publishing an equal set changes nothing.
// It does not wait for any proxy. When a message cannot be encoded, nothing is published.
func (s *Server) Publish(set []resource.Resource) error {
	s.publish.Lock()
	defer s.publish.Unlock()
	old := s.snapshot.Load()
	n, err := old.next(set)
	if err != nil || n == old {
		return err
	}
	s.snapshot.Store(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		st.wake.Set()
	}
	return nil
}

// Version returns the version of a resource; false if it is not published.
func (s *Server) Version(ref resource.Ref) (string, bool) {
	snap := s.snapshot.Load()
	if snap == nil {
		return "", false
	}
	r := snap.of(ref.Type).byName[ref.Name]
	if r == nil {
		return "", false
	}
	return r.version, true
}

// Versions returns the version of each resource that is published.
func (s *Server) Versions() map[resource.Ref]string {
	versions := map[resource.Ref]string{}
	if snap := s.snapshot.Load(); snap != nil {
		for _, t := range snap.types {
			for _, r := range t.byName {
				versions[r.Ref] = r.version
			}
		}
	}
	return versions
}

// Changed has a value whenever Clients may differ from what it returned before
// the last receive. There is one channel: one receiver.
func (s *Server) Changed() <-chan struct{} { return s.changed }

// peers lists all proxies and forgets those that have been gone for too long.
func (s *Server) peers() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lost []*peer
	at := map[*peer]time.Time{}
	for name, p := range s.byName {
		p.mu.Lock()
		if len(p.streams) == 0 {
			if time.Since(p.lost) >= forgetAfter {
				delete(s.byName, name)
			} else {
				lost, at[p] = append(lost, p), p.lost
			}
		}
		p.mu.Unlock()
	}
	if over := len(lost) - maxLost; over > 0 {
		slices.SortFunc(lost, func(a, b *peer) int { return at[a].Compare(at[b]) })
		for _, p := range lost[:over] {
			delete(s.byName, p.node)
		}
	}
	return slices.Collect(maps.Values(s.byName))
}

// ServerOptions are what the grpc.Server for Register should be made with: a
// proxy that has gone silent is noticed after 8 s, and proxies may ping as often.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 5 * time.Second, Timeout: 3 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(32 << 20), // a reconnecting proxy lists everything it holds
	}
}
