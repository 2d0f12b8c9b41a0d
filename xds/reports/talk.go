package reports

import (
	"context"
	"net/netip"

	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sluice-proxy/sluice/xds/process"
)

// talk is one stream of reports of one kind. Its process's newest one is the source.
type talk struct {
	stream   *process.Stream
	origin   *origin
	reporter *reporter
	source   *source
}

var (
	errReplaced = status.Error(codes.Unavailable, "another stream has spoken for this node; connect again")
	errParted   = status.Error(codes.Unavailable, "another process has this node id and was taken for this one; connect again")
)

// open makes a stream its process's source of one kind of reports.
func (h *Hub) open(ctx context.Context, node, kind string, which func(*reporter) *source) (*talk, error) {
	if node == "" || len(node) > maxName {
		return nil, status.Error(codes.InvalidArgument, "the first message names no node.id; set it in the bootstrap")
	}
	from := ""
	if p, ok := grpcpeer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	t := &talk{stream: h.processes.Open(node, from, kind), origin: new(origin)}
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.node(t.stream.Process.Name())
	if err != nil {
		t.stream.Close()
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	n.process = t.stream.Process
	if at, err := netip.ParseAddrPort(from); err == nil {
		n.machine = at.Addr().Unmap()
	}
	t.reporter, t.source = n, which(n)
	if t.source.local() {
		h.log.Warn("proxy reports again while its older stream is open", "node", n.node)
	}
	t.source.origin = t.origin
	h.changed.Set()
	return t, nil
}

// close ends a stream as its process's source; what it reported stays.
func (h *Hub) close(t *talk) {
	t.stream.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.source.origin == t.origin {
		t.source.origin = nil
	}
	h.changed.Set()
}

// hear has the loop receive until it ends, or until the stream has to be begun anew.
func (t *talk) hear(loop func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- loop() }() // ends when the call does: it receives on the call's stream
	select {
	case err := <-ended:
		return err
	case <-t.stream.Over():
		return errParted
	}
}
