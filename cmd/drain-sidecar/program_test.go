package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// TestMain is drain-sidecar itself when a test runs it as a process.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "echo-server" {
		os.Exit(serveEcho(os.Args[2]))
	}
	if os.Getenv("DRAIN_SIDECAR_ITSELF") != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is a running drain-sidecar.
type program struct {
	*fleet.Process
	t      testing.TB
	listen string
	base   string
	token  string // its file
	client *contract.Client
}

// start runs this binary as a process before the server at to.
func start(t *testing.T, to string, flags ...string) *program {
	t.Helper()
	t.Setenv("DRAIN_SIDECAR_ITSELF", "1")
	return startBinary(t, os.Args[0], to, flags...)
}

func startBinary(t testing.TB, binary, to string, flags ...string) *program {
	t.Helper()
	listen, err := fleet.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := fleet.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, listen: listen.String(), base: "http://" + endpoint.String(), client: contract.NewClient("secret")}
	t.Cleanup(p.client.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.token = token
	command := append([]string{binary, "--listen", p.listen, "--to", to, "--drain", endpoint.String(), "--token-file", token}, flags...)
	if p.Process, err = fleet.Start("drain-sidecar", "", command...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Await(ctx, func(ctx context.Context) error {
		_, err := p.client.Status(ctx, p.base)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

// echo is a WebSocket server that knows nothing of the contract.
func echo(t *testing.T) string {
	srv := httptest.NewServer(http.HandlerFunc(fleet.Echo))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// connect returns n clients that have had an echo.
func (p *program) connect(n int) (clients []*fleet.Socket) {
	p.t.Helper()
	for range n {
		c, _, err := fleet.DialSocket(p.t.Context(), "ws://"+p.listen)
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { _ = c.Close() })
		if err := c.Say("hello"); err != nil {
			p.t.Fatal(err)
		}
		if text, err := c.Hear(); err != nil || text != "hello" {
			p.t.Fatalf("the echo is %q, %v", text, err)
		}
		clients = append(clients, c)
	}
	return clients
}

func (p *program) status() contract.Status {
	p.t.Helper()
	s, err := p.client.Status(p.t.Context(), p.base)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// until waits for something that the program does.
func (p *program) until(what string, is func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	for !is() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			p.t.Fatalf("%s: not within 20 s:\n%s", what, p.Log())
		}
	}
}

// says waits until the log holds text.
func (p *program) says(text string) {
	p.t.Helper()
	p.until("to say "+text, func() bool { return strings.Contains(p.Log(), text) })
}

// drains waits until its endpoint says so.
func (p *program) drains() {
	p.t.Helper()
	p.until("to drain", func() bool { return p.status().State == contract.Draining })
}

// ends wants the process to end by itself, with err as its exit error.
func (p *program) ends(err string) {
	p.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		p.t.Fatalf("it does not end:\n%s", p.Log())
	}
	if got := fmt.Sprint(p.Err()); got != err {
		p.t.Errorf("it ended with %s, want %s:\n%s", got, err, p.Log())
	}
}

// On SIGTERM the connections are let go at its own pace, each with 1012, while
// new ones are refused and the endpoint answers; then it ends.
func TestSIGTERMLetsConnectionsGo(t *testing.T) {
	p := start(t, echo(t), "--close", "10", "--every", "500ms")
	clients := p.connect(10)
	begin := time.Now()
	p.Signal(syscall.SIGTERM)
	p.drains()
	if _, res, err := fleet.DialSocket(t.Context(), "ws://"+p.listen); err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a new client is answered %v, %v; want 503", res, err)
	}
	for _, c := range clients {
		if _, err := c.Hear(); !errors.Is(err, fleet.CloseError(1012)) {
			t.Errorf("a client's connection ended with %v, want close 1012", err)
		}
	}
	p.ends("<nil>")
	// Ten at even distances of 50 ms, the first within one of them.
	if took := time.Since(begin); took < 450*time.Millisecond {
		t.Errorf("all were closed within %s, want 450 ms or more", took)
	}
}

// The orders of the control plane are carried out, and stand above SIGTERM.
func TestOrders(t *testing.T) {
	p := start(t, echo(t), "--limit", "7", "--mode", "websocket")
	clients := p.connect(3)
	order := func(step uint64, ceiling int) contract.Status {
		s, err := p.client.Order(t.Context(), p.base, contract.Order{Rollout: "r", Epoch: 1, Step: step, Ceiling: &ceiling})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := order(1, 3); s.State != contract.Draining || s.Active != 3 || s.Limit != 7 || s.Returned != nil {
		t.Errorf("the order is answered %+v, want 3 held of 7, returned unknown", s)
	}
	p.Signal(syscall.SIGTERM)
	order(2, 0)
	for _, c := range clients {
		if _, err := c.Hear(); !errors.Is(err, fleet.CloseError(1012)) {
			t.Errorf("a client's connection ended with %v, want close 1012", err)
		}
	}
	p.ends("<nil>")
}

// Whoever is left when the grace period ends is closed, and that is said.
func TestGraceEnds(t *testing.T) {
	p := start(t, echo(t), "--close", "1", "--every", "1h", "--shutdown-grace", "50ms")
	clients := p.connect(2) // who do not answer their goodbyes meanwhile
	p.Signal(syscall.SIGTERM)
	p.ends("exit status 1")
	p.says("were left when the grace period ended")
	for _, c := range clients {
		if _, err := c.Hear(); err == nil {
			t.Error("a client's connection goes on")
		}
	}
}

// A second signal ends it at once.
func TestSecondSignal(t *testing.T) {
	p := start(t, echo(t), "--close", "1", "--every", "1h", "--shutdown-grace", "1h")
	p.connect(1)
	p.Signal(syscall.SIGTERM)
	p.drains()
	for range 1000 { // the first of these may come before the program has taken the one before
		p.Signal(syscall.SIGTERM)
		select {
		case <-p.Done():
		case <-time.After(10 * time.Millisecond):
			continue
		}
		break
	}
	p.ends("signal: terminated")
}

// A server that is down is told by its clients' 503 and by the log, and one that
// comes up is used.
func TestServerComesUp(t *testing.T) {
	addr, err := fleet.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, addr.String())
	_, res, err := fleet.DialSocket(t.Context(), "ws://"+p.listen)
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" {
		t.Fatalf("the client is answered %v, %v; want 503 with Retry-After", res, err)
	}
	p.says("the server is unreachable")
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			_, _ = io.WriteString(c, "220 hello\r\n")
			_ = c.Close()
		}
	}()
	c, err := net.Dial("tcp", p.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "220 hello\r\n" {
		t.Errorf("the client heard %q, %v", line, err)
	}
}

func TestWrongUsage(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	words := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(words, []byte("two words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"--help", 0, "-close-wait"},
		{"--version", 0, "drain-sidecar devel"},
		{"--", 2, "nothing follows --"},
		{"--nonsense", 2, "flag provided but not defined"},
		{"serve", 2, `unexpected argument "serve"`},
		{"--mode udp", 2, `mode "udp" is unknown; it is auto, websocket or tcp`},
		{"--to here", 2, `the server's address "here" is no host:port and no unix:/path`},
		{"--limit -1", 2, "--limit must be 0 or more"},
		{"--close 0", 2, "--close above 0"},
		{"--every 0s", 2, "--every is 0s; it must be above 0"},
		{"--close-wait -1s", 2, "--close-wait is -1s; it must be above 0"},
		{"--drain 0.0.0.0:9002", 2, "can be reached from other machines, so it needs --token-file"},
		{"--drain 9002", 2, "--drain: address 9002: missing port"},
		{"--token-file " + empty, 2, "--token-file: " + empty + " is empty; it must hold the token"},
		{"--token-file " + words, 2, "--token-file: " + words + " holds more than one word of plain characters; it must hold the token alone"},
		{"--token-file /nowhere/token", 2, "no such file"},
		{"--drain " + taken.Addr().String(), 1, "--drain: listen tcp"},
		{"--drain :0 --listen " + taken.Addr().String(), 1, "--listen: listen tcp"},
	} {
		var said bytes.Buffer
		if code := run(t.Context(), strings.Fields(tc.args), &said, &said); code != tc.code || !strings.Contains(said.String(), tc.want) {
			t.Errorf("drain-sidecar %s: exit code %d, want %d and %q:\n%s", tc.args, code, tc.code, tc.want, said.String())
		}
	}
}
