package fleet

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/sluice-proxy/sluice/envoy/bootstrap"
)

// EnvoyOptions describe one Envoy to start.
type EnvoyOptions struct {
	// Node is its name; also names its files in Dir.
	Node string
	// XDS is where rolloutd serves xDS; it need not be up yet unless Ready is set.
	XDS netip.AddrPort
	// Dir is an existing folder for its bootstrap and log.
	Dir string
	// Ready are the listeners to wait for; when empty only the admin interface is
	// waited for. Envoy's own /ready does not say that it listens.
	Ready []netip.AddrPort
	// Concurrency is the number of worker threads; 0 is one.
	Concurrency int
	// BaseID lets it be restarted hot, by a second start with the same BaseID and the next
	// Epoch; 0: it cannot be. Each start has a Dir of its own.
	BaseID, Epoch int
	// Edit changes the bootstrap that is written; nil: it stays.
	Edit func(bootstrap string) string
}

// StartEnvoy starts the real Envoy on a bootstrap that is written for it, waits
// until it is ready or ctx ends, and returns it with the address of its admin
// interface. On an error no process is left.
func StartEnvoy(ctx context.Context, o EnvoyOptions) (*Process, netip.AddrPort, error) {
	path, err := EnvoyPath()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	admin, err := FreeAddr()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	var b bytes.Buffer
	workers := max(o.Concurrency, 1)
	if err := bootstrap.Write(&b, bootstrap.Options{Node: o.Node, XDS: o.XDS.String(), Admin: admin, Concurrency: workers}); err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("bootstrap of %s: %w", o.Node, err)
	}
	text, file := b.String(), filepath.Join(o.Dir, o.Node+".yaml")
	if o.Edit != nil {
		text = o.Edit(text)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("bootstrap of %s: %w", o.Node, err)
	}
	// Without hot restart several Envoys share a machine and none leaves shared
	// memory behind.
	command := append([]string{path, "-c", file, "--log-level", "warning", "--concurrency", strconv.Itoa(workers)}, bootstrap.Flags()...)
	if o.BaseID == 0 {
		command = append(command, "--disable-hot-restart")
	} else {
		command = append(command, "--base-id", strconv.Itoa(o.BaseID), "--restart-epoch", strconv.Itoa(o.Epoch))
	}
	p, err := Start(o.Node, filepath.Join(o.Dir, o.Node+".log"), command...)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	for _, addr := range append([]netip.AddrPort{admin}, o.Ready...) {
		if err := p.Await(ctx, Listening(addr)); err != nil {
			p.Kill()
			return nil, netip.AddrPort{}, err
		}
	}
	return p, admin, nil
}
