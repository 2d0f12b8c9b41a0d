package fleet

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/sluice-proxy/sluice/discovery"
)

// SidecarOptions describe one drain-sidecar to start.
type SidecarOptions struct {
	Bin Bin
	// Dir is an existing folder for its log, NAME.log.
	Dir string
	// Name is unique in its fleet.
	Name    discovery.InstanceID
	Colour  discovery.Colour
	Version string
	// To is the address of the server behind, host:port.
	To string
	// Flags are further flags, such as --mode tcp.
	Flags []string
}

// Sidecar is a running drain-sidecar.
type Sidecar struct {
	*Process
	// Instance is what has to be registered for the server behind.
	Instance Instance
}

// StartSidecar starts a drain-sidecar on free ports and waits until it serves;
// the server behind sees nothing of that. On an error no process is left.
func StartSidecar(ctx context.Context, o SidecarOptions) (*Sidecar, error) {
	program, err := o.Bin.Program("drain-sidecar")
	if err != nil {
		return nil, err
	}
	listen, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	drain, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	command := append([]string{program, "--listen", listen.String(), "--to", o.To, "--drain", drain.String()}, o.Flags...)
	p, err := Start(string(o.Name), filepath.Join(o.Dir, string(o.Name)+".log"), command...)
	if err != nil {
		return nil, err
	}
	// The endpoint answers once both addresses are listened on.
	if err := p.Await(ctx, func(ctx context.Context) error {
		code, body, err := get(ctx, "http://"+drain.String()+"/drain")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("/drain answers %d: %s", code, body)
		}
		return err
	}); err != nil {
		p.Kill()
		return nil, err
	}
	return &Sidecar{Process: p, Instance: Instance{
		ID: o.Name, Colour: o.Colour, Address: listen.String(), Drain: drain.String(), Version: o.Version,
	}}, nil
}
