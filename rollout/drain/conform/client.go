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
)

// client is one connection to the instance, as its peer sees it.
type client struct {
	conn      net.Conn
	read      *bufio.Reader
	websocket bool
	ended     chan struct{} // closed when ending is set
	ending    ending
}

// ending is how the instance ended a connection.
type ending struct {
	at   time.Time
	code int   // of a WebSocket's close frame; 0: there was none
	err  error // nil: a FIN
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

func (in *instance) dial(ctx context.Context) (*client, error) {
	conn, err := in.opt.Dial(ctx, "tcp", in.connect.Host)
	if err != nil {
		return nil, &turnedAway{err: err}
	}
	if in.connect.Scheme == "wss" {
		conn = tls.Client(conn, &tls.Config{ServerName: in.connect.Hostname()})
	}
	c := &client{conn: conn, read: bufio.NewReader(conn), websocket: in.connect.Scheme != "tcp", ended: make(chan struct{})}
	if c.websocket {
		if err := c.shakeHands(in.connect); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return c, nil
}

func (c *client) shakeHands(to *url.URL) error {
	_ = c.conn.SetDeadline(time.Now().Add(5 * time.Second))
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	_, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
		to.RequestURI(), to.Host, base64.StdEncoding.EncodeToString(key))
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
	defer close(c.ended)
	defer c.conn.Close()
	if !c.websocket {
		_, err := io.Copy(io.Discard, c.read)
		c.ending = ending{at: time.Now(), err: err}
		return
	}
	for {
		opcode, payload, err := c.frame()
		if errors.Is(err, io.EOF) {
			c.ending = ending{at: time.Now()}
			return
		}
		switch {
		case err != nil:
			c.ending = ending{at: time.Now(), err: err}
			return
		case opcode == opClose:
			c.ending = ending{at: time.Now(), code: 1005} // "no status", RFC 6455, 7.4.1
			if len(payload) >= 2 {
				c.ending.code = int(binary.BigEndian.Uint16(payload))
			}
			c.send(opClose, payload)
			return
		case opcode == opPing:
			c.send(opPong, payload)
		}
	}
}

const (
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

// frame reads one (RFC 6455, 5.2). The payload of a long one is left out.
func (c *client) frame() (opcode byte, payload []byte, err error) {
	var h [2]byte
	if _, err := io.ReadFull(c.read, h[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(h[1] & 0x7f)
	if extended := map[uint64]int{126: 2, 127: 8}[size]; extended > 0 {
		var b [8]byte
		if _, err := io.ReadFull(c.read, b[8-extended:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(b[:])
	}
	if size > 1<<40 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", size)
	}
	if size > 125 {
		_, err = io.CopyN(io.Discard, c.read, int64(size))
		return h[0] & 0xf, nil, err
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(c.read, payload)
	return h[0] & 0xf, payload, err
}

// send writes a short frame, masked with zeroes, which leaves it readable.
func (c *client) send(opcode byte, payload []byte) {
	_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.conn.Write(append([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...))
}

// hangUp is the client's own end of the connection.
func (c *client) hangUp() {
	if c.websocket {
		c.send(opClose, []byte{1000 >> 8, 1000 & 0xff})
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
