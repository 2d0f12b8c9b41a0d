package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// serveEcho is the server that tests put behind the sidecar as its child: it answers
// at a Unix socket and ends at once on SIGTERM, with 3 when its address is wrong and
// whenever its parent is gone.
func serveEcho(path string) int {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return 3
	}
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent {
			time.Sleep(100 * time.Millisecond)
		}
		os.Exit(4)
	}()
	released := make(chan struct{})
	_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") != "":
			fleet.Echo(w, r)
		case r.URL.Path == "/slow":
			<-released
			_, _ = io.WriteString(w, "at last")
		case r.URL.Path == "/release":
			close(released)
		}
	}))
	return 5
}

// startTogether runs the sidecar with a server as its child.
func startTogether(t *testing.T, flags ...string) *program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.sock")
	p := start(t, "unix:"+path, append(flags, "--", os.Args[0], "echo-server", path)...)
	for {
		if _, err := os.Stat(path); err == nil {
			return p
		}
		select {
		case <-p.Done():
			t.Fatalf("it has ended:\n%s", p.Log())
		case <-time.After(time.Millisecond):
		}
	}
}

// The server is a child: it is stopped when the connections have been let go, and no
// signal reaches it before, even if it is sent to the whole group.
func TestTogetherWithItsServer(t *testing.T) {
	p := startTogether(t, "--close", "100", "--every", "100ms")
	clients := p.connect(10)
	if err := syscall.Kill(-p.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if _, err := c.Hear(); !errors.Is(err, fleet.CloseError(1012)) {
			t.Errorf("a client's connection ended with %v, want close 1012", err)
		}
	}
	p.ends("<nil>")
}

// A server that ends by itself ends the sidecar with its code.
func TestServerThatEnds(t *testing.T) {
	for want, command := range map[string][]string{
		"exit status 3":   {os.Args[0], "echo-server", "/nowhere/app.sock"},
		"exit status 1":   {"/nowhere/server"},
		"exit status 0":   {"true"},
		"exit status 143": {"sh", "-c", "kill -TERM $$"},
	} {
		t.Setenv("DRAIN_SIDECAR_ITSELF", "1")
		p, err := fleet.Start("drain-sidecar", "", append([]string{os.Args[0], "--listen", "127.0.0.1:0", "--drain", "127.0.0.1:0", "--"}, command...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		<-p.Done()
		got := "exit status 0"
		if p.Err() != nil {
			got = p.Err().Error()
		}
		if got != want || !strings.Contains(p.Log(), "the server") {
			t.Errorf("%v: it ended with %s, want %s:\n%s", command, got, want, p.Log())
		}
	}
}

// wait asks the sidecar to let its connections go and returns when none is left: a
// supervisor's hook ends the server not before.
func TestWait(t *testing.T) {
	p := start(t, echo(t), "--close", "100", "--every", "100ms")
	clients := p.connect(10)
	said := &strings.Builder{}
	ended := make(chan int, 1)
	go func() { ended <- run(t.Context(), []string{"wait", "--token-file", p.token, p.base}, said, said) }()
	for _, c := range clients {
		if _, err := c.Hear(); !errors.Is(err, fleet.CloseError(1012)) {
			t.Errorf("a client's connection ended with %v, want close 1012", err)
		}
	}
	if code := <-ended; code != 0 {
		t.Errorf("wait ended with %d: %s", code, said)
	}
	p.ends("<nil>")
}

// It does not say that nobody is left while somebody is, or when it does not know.
func TestWaitDoesNotGuess(t *testing.T) {
	p := start(t, echo(t), "--close", "1", "--every", "1h")
	p.connect(2)
	for args, want := range map[string]string{
		"--timeout 300ms --token-file " + p.token + " " + p.base: "it still holds 2 connections, 0 requests are under way and 0 linger",
		p.base:                    "the bearer token is missing or wrong",
		"http://127.0.0.1:1":      "nothing is known of the sidecar",
		"127.0.0.1:9002":          "name the drain endpoint alone, such as http://127.0.0.1:9002",
		p.base + " " + p.base:     "name the drain endpoint alone",
		"--token-file /nowhere x": "name the drain endpoint alone",
	} {
		said := &strings.Builder{}
		if code := run(t.Context(), append([]string{"wait"}, strings.Fields(args)...), said, said); code == 0 || !strings.Contains(said.String(), want) {
			t.Errorf("wait %s ended with %d: %s; want %s", args, code, said, want)
		}
	}
	if s := p.status(); s.State != contract.Draining || s.Active != 2 {
		t.Errorf("status %+v, want 2 held, draining", s)
	}
}
