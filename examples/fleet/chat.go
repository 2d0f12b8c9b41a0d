package fleet

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

// ChatOptions describe one chat instance to start.
type ChatOptions struct {
	Bin Bin
	// Command is what is started in place of Bin's chat; it takes the same flags.
	Command []string
	// Dir is an existing folder for its log, NAME.log.
	Dir string
	// Name is unique in its fleet.
	Name    discovery.InstanceID
	Colour  discovery.Colour
	Version string
	// WithoutDrain leaves the library out: on SIGTERM it drops its connections,
	// and it is registered without a drain endpoint.
	WithoutDrain bool
	// Flags are further flags of chat, such as --grace 5s.
	Flags []string
}

// Chat is a running chat instance.
type Chat struct {
	*Process
	// Instance is what has to be registered.
	Instance Instance
}

// StartChat starts a chat instance on free ports and waits until it accepts
// connections. On an error no process is left.
func StartChat(ctx context.Context, o ChatOptions) (*Chat, error) {
	program := o.Command
	if len(program) == 0 {
		path, err := o.Bin.Program("chat")
		if err != nil {
			return nil, err
		}
		program = []string{path}
	}
	listen, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	in := Instance{ID: o.Name, Colour: o.Colour, Address: listen.String(), Version: o.Version}
	command := append(slices.Clone(program), "--name", string(o.Name), "--colour", string(o.Colour), "--version", o.Version, "--listen", in.Address)
	ready := []netip.AddrPort{listen}
	if !o.WithoutDrain {
		drain, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		in.Drain = drain.String()
		command = append(command, "--drain", in.Drain)
		ready = append(ready, drain)
	}
	p, err := Start(string(o.Name), filepath.Join(o.Dir, string(o.Name)+".log"), append(command, o.Flags...)...)
	if err != nil {
		return nil, err
	}
	for _, addr := range ready {
		if err := p.Await(ctx, Listening(addr)); err != nil {
			p.Kill()
			return nil, err
		}
	}
	return &Chat{Process: p, Instance: in}, nil
}
