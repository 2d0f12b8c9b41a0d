package fleet

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
)

// Instance is one entry of the discovery file.
type Instance struct {
	ID       discovery.InstanceID `yaml:"id"`
	Colour   discovery.Colour     `yaml:"colour,omitempty"`
	Address  string               `yaml:"address,omitempty"`
	Drain    string               `yaml:"drain,omitempty"`
	Capacity int                  `yaml:"capacity,omitempty"`
	Version  string               `yaml:"version,omitempty"`
	Health   discovery.Health     `yaml:"health,omitempty"`
}

// Instances is the whole discovery file.
type Instances map[discovery.Service][]Instance

// RolloutdOptions describe a rolloutd to start.
type RolloutdOptions struct {
	Bin Bin
	// Dir is an existing folder for its configuration, state and log.
	Dir string
	// Instances is the first content of the discovery file.
	Instances Instances
	// Discovery is the value of that key in YAML. Default: the discovery file.
	Discovery string
	// State likewise. Default: the folder state in Dir.
	State string
	// Rest is the rest of the configuration in YAML: listeners and services.
	Rest string
}

// Rolloutd is the control plane as a process. Kill, Stop and Start again leave
// its addresses and its state as they are. Methods of Process may be called
// concurrently, but not with Start.
type Rolloutd struct {
	*Process
	XDS, API netip.AddrPort
	// Config is the path of its configuration.
	Config string
	opt    RolloutdOptions
}

// StartRolloutd writes the configuration, starts rolloutd on free ports and
// waits until it is ready. On an error no process is left.
func StartRolloutd(ctx context.Context, o RolloutdOptions) (*Rolloutd, error) {
	r := &Rolloutd{opt: o, Config: filepath.Join(o.Dir, "sluice.yaml")}
	var err error
	if r.XDS, err = FreeAddr(); err != nil {
		return nil, err
	}
	if r.API, err = FreeAddr(); err != nil {
		return nil, err
	}
	if err := r.WriteInstances(o.Instances); err != nil {
		return nil, err
	}
	if err := r.Configure(o.Rest); err != nil {
		return nil, err
	}
	return r, r.Start(ctx)
}

// Configure writes the configuration with another rest. A running rolloutd reads
// it at SIGHUP.
func (r *Rolloutd) Configure(rest string) error {
	or := func(value, def string) string {
		if value == "" {
			return def
		}
		return value
	}
	text := fmt.Sprintf("discovery: %s\nstate: %s\nxds: {listen: %s}\napi: {listen: %s}\n%s",
		or(r.opt.Discovery, "{file: instances.yaml}"), or(r.opt.State, "{file: state}"), r.XDS, r.API, rest)
	return renameio.WriteFile(r.Config, []byte(text), 0o644)
}

// WriteInstances replaces the discovery file in one move.
func (r *Rolloutd) WriteInstances(all Instances) error {
	b, err := yaml.Marshal(map[string]Instances{"services": all})
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(r.opt.Dir, "instances.yaml"), b, 0o644)
}

// Start starts it again after Kill or Stop and waits until it is ready.
func (r *Rolloutd) Start(ctx context.Context) error {
	path, err := r.opt.Bin.Program("rolloutd")
	if err != nil {
		return err
	}
	p, err := Start("rolloutd", filepath.Join(r.opt.Dir, "rolloutd.log"), path, "--config", r.Config)
	if err != nil {
		return err
	}
	if err := p.Await(ctx, r.ready); err != nil {
		p.Kill()
		return err
	}
	r.Process = p
	return nil
}

func (r *Rolloutd) ready(ctx context.Context) error {
	code, body, err := get(ctx, "http://"+r.API.String()+"/readyz")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("/readyz answers %d: %s", code, strings.TrimSpace(body))
	}
	return err
}

// Reload has it read its configuration again.
func (r *Rolloutd) Reload() { r.Signal(syscall.SIGHUP) }

// Client asks it.
func (r *Rolloutd) Client() (*api.Client, error) {
	return api.NewClient("http://"+r.API.String(), "")
}

// Ctl runs rolloutctl against it, as an operator would, and returns what it
// printed on its standard output; the error holds what it said on the other.
func (r *Rolloutd) Ctl(ctx context.Context, args ...string) (string, error) {
	path, err := r.opt.Bin.Program("rolloutctl")
	if err != nil {
		return "", err
	}
	var said strings.Builder
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "SLUICE_SERVER=http://"+r.API.String())
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("rolloutctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
