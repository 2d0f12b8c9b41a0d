package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A WebSocket that has exchanged some messages and is idle costs at most 25 KB.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const most = 25e3
	if each := idle(t, 1500); each > most {
		t.Errorf("an idle connection costs %.0f bytes, want at most %.0f", each, most)
	}
}

// BenchmarkIdle reports what an idle WebSocket costs in a drain-sidecar process.
func BenchmarkIdle(b *testing.B) {
	var each float64
	for b.Loop() {
		each = idle(b, 4000)
	}
	b.ReportMetric(each/1e3, "kB/connection")
	b.ReportMetric(0, "ns/op")
}

// idle is by how many bytes each of n idle connections increases the resident
// memory of a drain-sidecar as it is built for users.
func idle(t testing.TB, n int) float64 {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "drain-sidecar")
	build(t, binary)
	p := startBinary(t, binary, talkative(t), "--mode", "websocket")
	before := resident(t, p.PID())
	var all []net.Conn
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	for range n {
		c, err := net.Dial("tcp", p.listen)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		r := bufio.NewReaderSize(c, 16)
		for _, said := range []string{handshake, frame, frame} {
			if _, err := io.WriteString(c, said); err != nil {
				t.Fatal(err)
			}
			answer := len(frame)
			if said == handshake {
				answer = len(switching)
			}
			if _, err := r.Discard(answer); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s := p.status(); s.Active != n {
		t.Fatalf("%d connections are held, want %d", s.Active, n)
	}
	return (resident(t, p.PID()) - before) / float64(n)
}

// build builds drain-sidecar as it is built for users.
func build(t testing.TB, binary string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
}

const (
	handshake = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
)

// frame is a message of a client of 1000 bytes; the server answers with as many.
var frame = "\x81\xfe\x03\xe8\x00\x00\x00\x00" + strings.Repeat("x", 1000)

// talkative switches protocols and answers each frame.
func talkative(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); _ = ln.Close() })
	answer := "\x81\x7e\x03\xec" + strings.Repeat("y", 1004)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { _ = c.Close() })
			go func() {
				if _, err := io.CopyN(io.Discard, c, int64(len(handshake))); err != nil {
					return
				}
				_, _ = io.WriteString(c, switching)
				for {
					if _, err := io.CopyN(io.Discard, c, int64(len(frame))); err != nil {
						return
					}
					_, _ = io.WriteString(c, answer)
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// resident is the resident memory of a process, in bytes, once it grows no more.
func resident(t testing.TB, pid int) float64 {
	t.Helper()
	last := 0.0
	for {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		kib, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		now := float64(kib) * 1024
		if now <= last {
			return now
		}
		last = now
		time.Sleep(100 * time.Millisecond)
	}
}
