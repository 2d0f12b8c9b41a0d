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

// Chat is a chat instance as a process. Kill, Stop and Start again leave its
// addresses as they are. Methods of Process may be called concurrently, but not
// with Start.
type Chat struct {
	*Process
	// Instance is what has to be registered.
	Instance Instance
	log      string
	command  []string
	ready    []netip.AddrPort
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
	c := &Chat{
		Instance: Instance{ID: o.Name, Colour: o.Colour, Address: listen.String(), Version: o.Version},
		log:      filepath.Join(o.Dir, string(o.Name)+".log"),
		ready:    []netip.AddrPort{listen},
	}
	c.command = append(slices.Clone(program), "--name", string(o.Name), "--colour", string(o.Colour), "--version", o.Version, "--listen", c.Instance.Address)
	if !o.WithoutDrain {
		drain, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		c.Instance.Drain = drain.String()
		c.command = append(c.command, "--drain", c.Instance.Drain)
		c.ready = append(c.ready, drain)
	}
	c.command = append(c.command, o.Flags...)
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Start starts it again after Kill or Stop and waits until it accepts
// connections. On an error no process is left.
func (c *Chat) Start(ctx context.Context) error {
	p, err := Start(string(c.Instance.ID), c.log, c.command...)
	if err != nil {
		return err
	}
	for _, addr := range c.ready {
		if err := p.Await(ctx, Listening(addr)); err != nil {
			p.Kill()
			return err
		}
	}
	c.Process = p
	return nil
}
