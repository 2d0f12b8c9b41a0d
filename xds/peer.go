package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/sluice-proxy/sluice/xds/process"
	"github.com/sluice-proxy/sluice/xds/resource"
)

const (
	maxTypes = 64      // resource types that one proxy may ask for
	maxNames = 200_000 // names of one type that one proxy may ask for or claim

	// goldenSection of 2^64: its multiples divide any range evenly, however many they are.
	goldenSection = 0x9e3779b97f4a7c15
)

// peer is one process: everything its streams have in common.
type peer struct {
	node    string // its name, which is its node id unless several share that
	process *process.Process
	place   uint64 // where among the others it begins, of 2^64

	mu                 sync.Mutex // guards what follows; never held while sending
	cluster, userAgent string
	has                map[string]bool // extensions by type URL, of those that resources may need
	addr               netip.AddrPort
	since, lost        time.Time
	streams            map[*stream]struct{}
	types              map[string]*holding
	nackCount          uint64
}

// attach makes st a stream of its process. It replaces an older stream of the same kind,
// whose requests no longer count.
func (s *Server) attach(st *stream, node *core.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.process = s.processes.Open(node.GetId(), st.from, "xds "+st.only)
	st.over = st.process.Over()
	name := st.process.Process.Name()
	p := s.byName[name]
	if p == nil {
		s.place += goldenSection
		p = &peer{node: name, place: s.place, streams: map[*stream]struct{}{}, types: map[string]*holding{}}
		s.byName[name] = p
	}
	s.streams[st] = struct{}{}

	p.mu.Lock()
	defer p.mu.Unlock()
	p.process = st.process.Process
	again := false
	for old := range p.streams {
		if st.only == old.only {
			old.replaced, again = true, true
		}
	}
	if len(p.streams) == 0 || st.only == "" {
		// Nothing that was known holds for sure before the proxy says so again, except
		// what a stream of its own type speaks for: this one need not ask for that.
		p.since = time.Now()
		for _, h := range p.types {
			if h.owner == nil || h.owner.only == "" {
				h.disown()
				h.names.reset(entry.unheld)
			}
		}
	}
	p.lost = time.Time{}
	p.cluster, p.userAgent, p.addr, p.has = node.GetCluster(), userAgent(node), st.addr, s.known(node)
	p.streams[st] = struct{}{}
	st.peer = p
	if again {
		s.log.Warn("proxy connected again while its older stream is open", "node", p.node, "addr", st.addr)
	} else {
		s.log.Info("proxy connected", "node", p.node, "addr", st.addr, "type", resource.Kind(st.only))
	}
	s.changed.Set()
}

// detach ends st's part. A replaced stream that remains is ended too: a proxy behind it
// has to start over.
func (s *Server) detach(st *stream, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := st.peer
	if p == nil {
		return
	}
	delete(s.streams, st)
	st.process.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, st)
	for _, h := range p.types {
		if h.owner == st {
			h.disown()
		}
	}
	if !st.replaced {
		for old := range p.streams {
			if old.replaced {
				old.end()
			}
		}
	}
	if len(p.streams) == 0 {
		p.lost = time.Now()
	}
	s.log.Info("proxy disconnected", "node", p.node, "addr", st.addr, "type", resource.Kind(st.only), "cause", cause)
	s.changed.Set()
}

// ensure finds or makes what is known about one type. p.mu is held.
func (p *peer) ensure(s *Server, typeURL string) (*holding, error) {
	if h := p.types[typeURL]; h != nil {
		return h, nil
	}
	if len(p.types) >= maxTypes {
		return nil, errors.New("too many resource types on one node")
	}
	h := newHolding(s, p, typeURL)
	p.types[typeURL] = h
	return h, nil
}

// retry has everything that waits for an acknowledgement looked at again. p.mu is held.
func (p *peer) retry(from *stream) {
	for _, h := range p.types {
		h.agenda.retry()
	}
	for st := range p.streams {
		if st != from {
			st.wake.Set()
		}
	}
}

// neededBy is a sentence that names the resource for which the proxy still needs ref;
// empty when ref may be removed. p.mu is held.
func (p *peer) neededBy(ref resource.Ref, snap *snapshot) string {
	for _, user := range snap.users[ref.Type] {
		if h := p.types[user]; user != ref.Type && (h == nil || h.owner == nil) {
			return fmt.Sprintf("proxy %s has not said which %s it holds, and one may use %s", p.node, resource.Kind(user), ref)
		}
	}
	for typeURL, h := range p.types {
		if typeURL == ref.Type {
			continue
		}
		for r := range h.inUse() {
			if set := snap.types[typeURL]; set != nil {
				if newer := set.byName[r.Name]; newer != nil && newer.version == r.version {
					r = newer
				}
			}
			if r.needs(ref) {
				return fmt.Sprintf("proxy %s still uses %s in %s", p.node, ref, r.Ref)
			}
			if r.envelope == nil && slices.Contains(snap.users[ref.Type], typeURL) {
				return fmt.Sprintf("proxy %s holds a version of %s that is not known here and may use %s", p.node, r.Ref, ref)
			}
		}
	}
	return ""
}

// known are the extensions that the proxy says it has, of those that resources may need.
func (s *Server) known(n *core.Node) map[string]bool {
	var has map[string]bool
	for _, e := range n.GetExtensions() {
		for _, typeURL := range e.GetTypeUrls() {
			if s.extensions[typeURL] && !e.GetDisabled() {
				if has == nil {
					has = map[string]bool{}
				}
				has[typeURL] = true
			}
		}
	}
	return has
}

// told is what the proxy is told where r is published; r may be nil. p.mu is held.
func (p *peer) told(r *revision) *revision {
	if r != nil && r.extension != "" && !p.has[r.extension] {
		return r.instead
	}
	return r
}

func userAgent(n *core.Node) string {
	v := n.GetUserAgentBuildVersion().GetVersion()
	switch {
	case v != nil:
		return fmt.Sprintf("%s %d.%d.%d", n.GetUserAgentName(), v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	case n.GetUserAgentVersion() != "":
		return n.GetUserAgentName() + " " + n.GetUserAgentVersion()
	}
	return n.GetUserAgentName()
}
