package outside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// execute runs a program, without a shell, in a process group of its own that is
// killed when ctx ends. It gets the variables given, PATH and HOME, and nothing
// else of what rolloutd knows. said is the last line that it wrote. The error says
// what became of it, and is refused when it exits with another code than 0.
func execute(ctx context.Context, command []string, variables ...string) (said string, err error) {
	out := &tail{}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = environment(variables)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// What it left behind may hold its output open; nobody waits for that.
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if failed, ok := errors.AsType[*exec.Error](err); ok {
		err = failed.Err
	}
	switch exit, ok := errors.AsType[*exec.ExitError](err); {
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case ok && exit.Exited():
		err = refused(fmt.Sprintf("exits with %d", exit.ExitCode()))
	case ok:
		err = fmt.Errorf("ends by %s", exit.ProcessState)
	case err != nil:
		err = fmt.Errorf("does not start: %w", err)
	}
	return plain(out.last()), err
}

func environment(variables []string) []string {
	env := []string{} // nil would be all that rolloutd has
	for _, name := range []string{"PATH", "HOME"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, variables...)
}

// mostTail is how much of a program's output is kept to find its last line.
const mostTail = 4 << 10

// tail keeps the end of what is written to it. What a program leaves behind may
// write while it is read.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-mostTail):]...)
	t.buf = append(t.buf[:0], t.buf[max(0, len(t.buf)-mostTail):]...)
	return len(b), nil
}

// last is the last line that holds anything.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := bytes.TrimSpace(t.buf)
	return string(b[bytes.LastIndexAny(b, "\r\n")+1:])
}
