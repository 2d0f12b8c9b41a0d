package conform

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// client is one connection to the instance, as its peer sees it.
type client struct {
	conn      net.Conn
	node      string // the proxy that it says it came through
	read      *bufio.Reader
	websocket bool
	quit      func()        // ends a gRPC stream, which has no connection of its own
	ended     chan struct{} // closed when ending is set
	ending    ending
}

// ending is how the instance ended a connection.
type ending struct {
	at   time.Time
	code int   // of a WebSocket's close frame, 0: there was none; or a gRPC status
	err  error // nil: a FIN
	// ticket is that of the goodbye; empty: there was none.
	ticket string
}

// turnedAway is that the instance refused a connection.
type turnedAway struct {
	code  int // HTTP status; 0: the TCP connection was closed
	retry string
	err   error
}

func (t *turnedAway) Error() string {
	if t.code != 0 {
		return fmt.Sprintf("it answers %d", t.code)
	}
	return fmt.Sprintf("it closed the connection: %v", t.err)
}

func (in *instance) dial(ctx context.Context) (*client, error) { return in.dialVia(ctx, "") }

// dialVia is dial for a client that comes through a proxy, as the proxy says; empty: none.
func (in *instance) dialVia(ctx context.Context, node string) (*client, error) {
	if in.connect.Scheme == "grpc" {
		return in.stream(ctx, node)
	}
	conn, err := in.opt.Dial(ctx, "tcp", in.connect.Host)
	if err != nil {
		return nil, &turnedAway{err: err}
	}
	if in.connect.Scheme == "wss" {
		conn = tls.Client(conn, &tls.Config{ServerName: in.connect.Hostname()})
	}
	c := &client{conn: conn, node: node, read: bufio.NewReader(conn), websocket: in.connect.Scheme != "tcp", ended: make(chan struct{})}
	if c.websocket {
		if err := c.shakeHands(in.bringing(), node); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return c, nil
}

func (c *client) shakeHands(to *url.URL, node string) error {
	_ = c.conn.SetDeadline(time.Now().Add(5 * time.Second))
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	via := ""
	if node != "" {
		via = contract.NodeHeader + ": " + node + "\r\n"
	}
	_, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n",
		to.RequestURI(), to.Host, base64.StdEncoding.EncodeToString(key), via)
	if err != nil {
		return &turnedAway{err: err}
	}
	res, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return &turnedAway{err: err}
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		_ = res.Body.Close()
		return &turnedAway{code: res.StatusCode, retry: res.Header.Get("Retry-After")}
	}
	return c.conn.SetDeadline(time.Time{})
}

// follow reads until the instance, or close, ends the connection.
func (c *client) follow() {
	if c.quit != nil {
		<-c.ended
		return
	}
	defer close(c.ended)
	defer c.conn.Close()
	if !c.websocket {
		_, err := io.Copy(io.Discard, c.read)
		c.ending = ending{at: time.Now(), err: err}
		return
	}
	for {
		f, err := wsframe.Read(c.read, 125)
		if err == nil && f.Masked {
			err = errors.New("a masked frame from a server")
		}
		if errors.Is(err, io.EOF) {
			c.ending = ending{at: time.Now()}
			return
		}
		switch {
		case err != nil:
			c.ending = ending{at: time.Now(), err: err}
			return
		case f.Opcode == wsframe.Close:
			c.ending = ending{at: time.Now(), code: 1005} // "no status", RFC 6455, 7.4.1
			if len(f.Payload) >= 2 {
				c.ending.code = int(binary.BigEndian.Uint16(f.Payload))
				_, c.ending.ticket = ticket.Cut(string(f.Payload[2:]))
			}
			c.send(wsframe.Close, f.Payload)
			return
		case f.Opcode == wsframe.Ping:
			c.send(wsframe.Pong, f.Payload)
		}
	}
}

// send writes a short frame, masked with zeroes, which leaves it readable.
func (c *client) send(opcode byte, payload []byte) {
	_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.conn.Write(wsframe.Append(nil, wsframe.Final|opcode, new([4]byte), payload))
}

// hangUp is the client's own end of the connection.
func (c *client) hangUp() {
	if c.quit != nil {
		c.quit()
		<-c.ended
		return
	}
	if c.websocket {
		c.send(wsframe.Close, []byte{1000 >> 8, 1000 & 0xff})
	}
	_ = c.conn.Close()
	<-c.ended
}

// gone reports whether the connection has ended.
func (c *client) gone() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}
