// Package fleet is the harness of the product's own tests and of the storm: it
// starts the real parts as child processes on loopback, Envoys, a Consul, rolloutd
// and chat instances.
package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is a child process. It dies with its parent. Methods may be called
// concurrently.
type Process struct {
	Name string
	cmd  *exec.Cmd
	log  *tail
	done chan struct{}
	err  error // owned by the waiting goroutine until done is closed
}

// Start runs the command in a process group of its own, with both outputs kept
// for Log (the last 64 KiB) and, when logFile is not empty, appended to it.
func Start(name, logFile string, command ...string) (*Process, error) {
	p := &Process{Name: name, cmd: exec.Command(command[0], command[1:]...), log: &tail{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if logFile != "" {
		f, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		p.log.file = f
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.log.close()
		close(p.done)
	}()
	return p, nil
}

// PID is the child's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal; a process that has already ended is no error.
func (p *Process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process at once (SIGKILL), with what it has started in its group, which
// would hold its log open, and waits for it.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	}
	<-p.done
}

// Stop sends SIGTERM, waits up to patience, then kills.
func (p *Process) Stop(patience time.Duration) {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.Kill()
	}
}

// Done is closed when the process has ended; Err is then its exit error.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is the exit error of an ended process, nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Log returns the last output.
func (p *Process) Log() string { return p.log.String() }

// Await polls ready until it succeeds; it fails when ctx ends or the process
// dies first, with the last error and the end of the log.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.Name, errors.Join(p.err, err), p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, err, p.Log())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Listening is a readiness check: something accepts TCP connections at addr.
func Listening(addr netip.AddrPort) func(context.Context) error {
	return func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// handedOut are the ports that FreeAddr has returned.
var handedOut sync.Map

// FreeAddr returns a loopback address that nothing listens on now. Its port is none that
// the kernel gives to outgoing connections, nor one that was returned before.
func FreeAddr() (netip.AddrPort, error) {
	for {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(10_000+rand.IntN(22_000)))
		l, err := net.Listen("tcp", addr.String())
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return netip.AddrPort{}, err
		}
		_ = l.Close()
		if _, taken := handedOut.LoadOrStore(addr, true); !taken {
			return addr, nil
		}
	}
}

// Tool finds a real program: the environment variable env, then PATH, then the
// pinned copies in the project's .tools/ folder.
func Tool(env, name, pinned string) (string, error) {
	if path := os.Getenv(env); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s names %s, which is not there: run make tools, or set it to a real %s", env, path, name)
		}
		return path, nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path, ok := above(filepath.Join(".tools", pinned)); ok {
		return path, nil
	}
	return "", fmt.Errorf("%s is not on PATH and was not fetched: run make tools, or set %s=/path/to/%s", name, env, name)
}

// above finds a path in the working directory or one above it.
func above(name string) (string, bool) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, true
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return "", false
}

// EnvoyPath finds Envoy.
func EnvoyPath() (string, error) {
	return Tool("ENVOY", "envoy", "envoy-1.39.3/envoy/_bin/envoy")
}

// ConsulPath finds Consul.
func ConsulPath() (string, error) { return Tool("CONSUL", "consul", "consul-v1.22.3") }

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	buf  []byte
	file *os.File
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		_, _ = t.file.Write(b)
	}
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - 64<<10; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		_ = t.file.Close()
		t.file = nil
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
