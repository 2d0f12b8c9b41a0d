//go:build real

package rolloutd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/coder/websocket"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// socketIO is Socket.IO with its own client, both in Node, over WebSocket.
var socketIO = product{
	service: "socketio", protocol: "http", mode: "websocket",
	serve: func(w *world, id discovery.InstanceID, c discovery.Colour) (string, func()) {
		command, err := fleet.NodeScript("socketio/server.js")
		w.must(err)
		addr := w.free()
		name := string(id) + "-server"
		p, err := fleet.Start(name, filepath.Join(w.dir, name+".log"),
			append(command, "--name", string(id), "--colour", string(c), "--listen", addr.String())...)
		w.must(err)
		w.t.Cleanup(func() {
			p.Kill()
			if w.t.Failed() {
				w.t.Logf("%s said:\n%s", name, p.Log())
			}
		})
		w.must(p.Await(w.ctx, fleet.Listening(addr)))
		return addr.String(), func() { p.Stop(patience) }
	},
	connect: func(w *world, addr netip.AddrPort, g *guests) func(context.Context) error {
		command, err := fleet.NodeScript("socketio/clients.js")
		w.must(err)
		cmd := exec.Command(command[0], append(command[1:], "http://"+addr.String(), strconv.Itoa(g.size))...)
		in, err := cmd.StdinPipe()
		w.must(err)
		out, err := cmd.StdoutPipe()
		w.must(err)
		w.must(cmd.Start())
		c := &nodeClients{say: in, heard: map[string]int{}, news: make(chan struct{}, 1)}
		var read sync.WaitGroup
		read.Go(func() { c.read(out, g) })
		w.t.Cleanup(func() {
			_ = in.Close()
			read.Wait()
			if err := cmd.Wait(); err != nil {
				w.t.Errorf("the clients ended with %v", err)
			}
		})
		return func(ctx context.Context) error { return c.talk(ctx, g.size) }
	},
}

// socketIOJoins is Socket.IO by the npm package of clients/node, without a sidecar.
var socketIOJoins = product{
	service: "socketio-joins", protocol: "http",
	joins:   func() ([]string, error) { return fleet.NodeScript("socketio/chat.js") },
	connect: socketIO.connect,
}

// nodeClients is a process of examples/socketio/clients.js.
type nodeClients struct {
	say  io.Writer
	said int // how often; belongs to talk

	mu    sync.Mutex
	heard map[string]int // how many have heard a text again
	err   error
	news  chan struct{} // one may wait: heard or err is another
}

// read notes what the clients print until they end.
func (c *nodeClients) read(out io.Reader, g *guests) {
	for lines := bufio.NewScanner(out); ; {
		var tells struct {
			Client        int
			Hello         *clients.Hello
			Left, Refused string
			Heard         string
			Code          websocket.StatusCode
		}
		err := io.EOF
		if lines.Scan() {
			err = json.Unmarshal(lines.Bytes(), &tells)
		}
		switch {
		case err != nil:
			c.note(func() { c.err = fmt.Errorf("the clients printed %q: %w", lines.Text(), err) })
			_, _ = io.Copy(io.Discard, out)
			return
		case tells.Hello != nil:
			g.joined(tells.Client, *tells.Hello)
		case tells.Left != "":
			g.left(tells.Client, tells.Code == websocket.StatusServiceRestart, fmt.Sprintf("%s (%d)", tells.Left, tells.Code))
		case tells.Refused != "":
			g.refused(tells.Client, errors.New(tells.Refused))
		default:
			c.note(func() { c.heard[tells.Heard]++ })
		}
	}
}

func (c *nodeClients) note(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// talk has all clients say something, and waits until size have heard it again.
func (c *nodeClients) talk(ctx context.Context, size int) error {
	c.said++
	text := fmt.Sprintf("still there? %d", c.said)
	if _, err := fmt.Fprintln(c.say, text); err != nil {
		return err
	}
	for {
		c.mu.Lock()
		heard, err := c.heard[text], c.err
		c.mu.Unlock()
		if heard >= size || err != nil {
			return err
		}
		select {
		case <-c.news:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d have heard %q: %w", heard, size, text, context.Cause(ctx))
		}
	}
}
