package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// server is the server behind as a child of the sidecar. It has a process group of
// its own, so that a terminal's ^C and its kind reach the sidecar alone.
type server struct {
	process *os.Process
	ended   chan struct{} // closed when it has ended
	state   *os.ProcessState
	err     error
}

// startServer runs the command; what it says goes where the sidecar's own does.
func startServer(command []string) (*server, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the server: %w", err)
	}
	return watch(cmd.Process), nil
}

// watch waits for a child until it has ended.
func watch(p *os.Process) *server {
	s := &server{process: p, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.state, s.err = p.Wait()
	}()
	return s
}

// done is closed when the server has ended; never where there is none.
func (s *server) done() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.ended
}

// stop has it end by SIGTERM, and after grace by SIGKILL, with all that it started.
func (s *server) stop(grace time.Duration) {
	if s == nil {
		return
	}
	_ = s.process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		return
	case <-time.After(grace):
	}
	_ = syscall.Kill(-s.process.Pid, syscall.SIGKILL)
	<-s.ended
}

// exited is that the server has ended by itself.
type exited struct {
	how  string
	code int
}

func (e *exited) Error() string { return "the server has ended by itself: " + e.how }

// fate is why the server, which has ended, has done so by itself.
func (s *server) fate() error {
	if s.err != nil {
		return &exited{s.err.Error(), 1}
	}
	code := s.state.ExitCode()
	if status, ok := s.state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return &exited{s.state.String(), code}
}

// exitCode is the server's own where it has ended by itself.
func exitCode(err error) int {
	if e, ok := errors.AsType[*exited](err); ok {
		return e.code
	}
	if err != nil {
		return 1
	}
	return 0
}

// split takes the server's command from behind "--".
func split(args []string) (own, command []string, err error) {
	at := slices.Index(args, "--")
	if at < 0 {
		return args, nil, nil
	}
	if at == len(args)-1 {
		return nil, nil, errors.New("nothing follows --; the server's command belongs there")
	}
	return args[:at], args[at+1:], nil
}
