package fleet

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/sluice-proxy/sluice/rollout/drain/wsframe"
)

// Socket is a WebSocket with short messages, enough to see that a connection works
// and how it ends. Libraries that others wrote are tried in test/thirdparty. Say and
// Hear belong to one goroutine each.
type Socket struct {
	net.Conn
	read   *bufio.Reader
	client bool
}

// CloseError is the status of the close frame that ended a Socket.
type CloseError int

func (e CloseError) Error() string { return fmt.Sprintf("closed with status %d", int(e)) }

// DialSocket connects to ws://HOST:PORT/PATH. With the error comes the response, if
// there was one; its body is closed.
func DialSocket(ctx context.Context, to string) (*Socket, *http.Response, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	s := &Socket{Conn: conn, read: bufio.NewReader(conn), client: true}
	res, err := s.shakeHands(u)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, res, fmt.Errorf("connect to %s: %w", to, err)
	}
	return s, res, nil
}

func (s *Socket) shakeHands(to *url.URL) (*http.Response, error) {
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	req := &http.Request{Method: http.MethodGet, URL: to, Host: to.Host, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {base64.StdEncoding.EncodeToString(key)},
	}}
	if err := req.Write(s.Conn); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(s.read, req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		_ = res.Body.Close()
		return res, fmt.Errorf("answered %s", res.Status)
	}
	return res, nil
}

// Say sends a text message.
func (s *Socket) Say(text string) error { return s.send(wsframe.Text, []byte(text)) }

func (s *Socket) send(opcode byte, payload []byte) error {
	var key *[4]byte
	if s.client {
		key = new([4]byte)
		_, _ = rand.Read(key[:])
	}
	_, err := s.Write(wsframe.Append(nil, wsframe.Final|opcode, key, payload))
	return err
}

// Hear returns the next message. After a close frame, which it answers, it is a
// CloseError, and after an end without one io.EOF.
func (s *Socket) Hear() (string, error) {
	for {
		f, err := wsframe.Read(s.read, 1<<20)
		switch {
		case err != nil:
			return "", err
		case f.Masked == s.client:
			return "", errors.New("only a client's frames are masked")
		}
		switch f.Opcode {
		case wsframe.Close:
			_ = s.send(wsframe.Close, f.Payload)
			if len(f.Payload) < 2 {
				return "", CloseError(1005)
			}
			return "", CloseError(binary.BigEndian.Uint16(f.Payload))
		case wsframe.Ping:
			_ = s.send(wsframe.Pong, f.Payload)
		case wsframe.Text:
			return string(f.Payload), nil
		}
	}
}

// Echo is a handler that takes a WebSocket over and says what it hears.
func Echo(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	answer := http.Response{StatusCode: http.StatusSwitchingProtocols, ProtoMajor: 1, ProtoMinor: 1, Header: w.Header().Clone()}
	answer.Header.Set("Connection", "Upgrade")
	answer.Header.Set("Upgrade", "websocket")
	// RFC 6455, 4.2.2.
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	s := &Socket{Conn: conn, read: rw.Reader}
	for err = answer.Write(conn); err == nil; {
		var text string
		if text, err = s.Hear(); err == nil {
			err = s.Say(text)
		}
	}
}
