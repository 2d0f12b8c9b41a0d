package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/sidecar"
)

// handoverFormat is the number of the format of a baton. A release reads the formats of
// those before it, or says in "takes-over" that it does not.
const handoverFormat = "1"

// handoverVariable has the descriptor of the baton.
const handoverVariable = "DRAIN_SIDECAR_HANDOVER"

// baton is what one image of the process leaves to the next one.
type baton struct {
	Listen   uintptr          `json:"listen"` // descriptors
	Drain    uintptr          `json:"drain"`
	Server   int              `json:"server,omitempty"` // process id of the child
	Upgrades int              `json:"upgrades"`
	Sidecar  sidecar.Handover `json:"sidecar"`
}

// self is the program's path as it was called: what is there now is what an upgrade
// begins.
var self = func() string {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return ""
	}
	return path
}()

// inherit takes over what the image before left; nil if there was none.
func inherit() (*baton, error) {
	text := os.Getenv(handoverVariable)
	if text == "" {
		return nil, nil
	}
	_ = os.Unsetenv(handoverVariable)
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", handoverVariable, err)
	}
	f := os.NewFile(uintptr(fd), "baton")
	defer f.Close()
	b := &baton{}
	if err := json.NewDecoder(f).Decode(b); err != nil {
		return nil, fmt.Errorf("what was handed over: %w", err)
	}
	return b, nil
}

// inheritedListener is one that was handed over.
func inheritedListener(fd uintptr) (net.Listener, error) {
	f := os.NewFile(fd, "listener")
	defer f.Close()
	return net.FileListener(f)
}

// upgrade begins the program that is at its path now, in this process, with the
// listeners and connections as they are. It returns only if that was not possible, and
// then everything goes on.
func (r *running) upgrade() error {
	if self == "" {
		return errors.New("it is not known where the program is")
	}
	if err := takesOver(self, os.Args[1:]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	state, thaw, err := r.car.Freeze(ctx)
	if err != nil {
		return err
	}
	defer thaw()
	b := baton{Upgrades: r.upgrades + 1, Sidecar: state}
	if r.behind != nil {
		b.Server = r.behind.process.Pid
	}
	for ln, fd := range map[net.Listener]*uintptr{r.clients: &b.Listen, r.contract: &b.Drain} {
		raw, err := ln.(*net.TCPListener).SyscallConn()
		if err != nil {
			return err
		}
		_ = raw.Control(func(number uintptr) { *fd = number })
	}
	memory, err := unix.MemfdCreate("baton", 0)
	if err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(memory), "baton")
	defer f.Close()
	if err = json.NewEncoder(f).Encode(b); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		return fmt.Errorf("the handover: %w", err)
	}
	all := []uintptr{b.Listen, b.Drain}
	for _, l := range state.Links {
		all = append(all, l.Client, l.Server)
	}
	if err := keepOpen(all, true); err != nil {
		return errors.Join(err, keepOpen(all, false))
	}
	err = syscall.Exec(self, os.Args, append(os.Environ(), handoverVariable+"="+strconv.Itoa(memory)))
	return errors.Join(fmt.Errorf("%s: %w", self, err), keepOpen(all, false))
}

// keepOpen says whether the descriptors outlive an exec.
func keepOpen(fds []uintptr, keep bool) error {
	flag := unix.FD_CLOEXEC
	if keep {
		flag = 0
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(fd, unix.F_SETFD, flag); err != nil {
			return fmt.Errorf("fcntl: %w", err)
		}
	}
	return nil
}

// takesOver asks the program whether it could begin with these arguments and with
// what this one hands over.
func takesOver(path string, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, path, append([]string{"takes-over", handoverFormat}, args...)...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil || strings.TrimSpace(said.String()) != handoverFormat {
		return fmt.Errorf("%s cannot take over: %s (%v)", path, strings.TrimSpace(said.String()), err)
	}
	return nil
}
