// Package clients is a swarm of WebSocket clients that behave as real ones do:
// each stays connected, reconnects by a policy when it is disconnected, and
// remembers every disconnect and every return.
package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Options of a swarm.
type Options struct {
	// Clients is how many there are.
	Clients int
	// URLs are where they connect (ws://…/ws); client i uses URL i modulo their
	// number, always.
	URLs []string
	// Reconnect is how they wait before they dial again.
	Reconnect Reconnect
	// Dials is the most handshakes under way at once. Default 128.
	Dials int
	// Handshake is how long a handshake, the hello included, may take. Default 10 s.
	Handshake time.Duration
	// Ping is how often each connected client sends a message that the instance
	// echoes (see SlowestEcho); 0 is never.
	Ping time.Duration
	// Seed makes the delays repeatable.
	Seed uint64
	// Logger gets one line per disconnect at debug level; nil logs nothing.
	Logger *slog.Logger
}

// Swarm is the clients. Its methods may be called concurrently; Run once.
type Swarm struct {
	opt    Options
	http   *http.Client
	tokens chan struct{} // one for each handshake under way

	mu      sync.Mutex
	records []Record
	counts  Counts
	conns   []*websocket.Conn // by client; nil while it is not connected
	check   uint64            // the newest Check
	unheard map[int]bool      // clients whose answer it still waits for
	slowest time.Duration     // echo of a ping since the last SlowestEcho
	changed chan struct{}     // closed at the next change; nil when nobody waits
}

// New checks the options. It connects nobody: Run does.
func New(opt Options) (*Swarm, error) {
	if opt.Clients < 1 {
		return nil, fmt.Errorf("swarm of %d clients; there must be at least 1", opt.Clients)
	}
	if len(opt.URLs) == 0 {
		return nil, errors.New("swarm has no URL to connect to; name at least one, such as ws://127.0.0.1:8080/ws")
	}
	if opt.Dials <= 0 {
		opt.Dials = 128
	}
	if opt.Handshake <= 0 {
		opt.Handshake = 10 * time.Second
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Swarm{
		opt: opt,
		// Thousands of idle connections: small buffers, nothing pooled.
		http: &http.Client{Transport: &http.Transport{
			DialContext:    (&net.Dialer{KeepAlive: -1}).DialContext,
			ReadBufferSize: 512, WriteBufferSize: 512, MaxIdleConns: -1, DisableKeepAlives: true,
		}},
		tokens:  make(chan struct{}, opt.Dials),
		counts:  Counts{Instance: map[string]int{}, Colour: map[string]int{}},
		conns:   make([]*websocket.Conn, opt.Clients),
		unheard: map[int]bool{},
	}, nil
}

// Run connects every client and keeps it connected until ctx ends; then it
// closes all connections, which is no disconnect in the records, and returns nil.
func (s *Swarm) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for i := range s.opt.Clients {
		all.Go(func() { s.client(ctx, i) })
	}
	if s.opt.Ping > 0 {
		all.Go(func() { s.ping(ctx) })
	}
	all.Wait()
	return nil
}

// client is the life of one: connect, stay, come back.
func (s *Swarm) client(ctx context.Context, i int) {
	rng := rand.New(rand.NewPCG(s.opt.Seed, uint64(i)))
	returning := false
	for attempt := 0; ; {
		conn, hello, refused := s.connect(ctx, i, returning)
		if ctx.Err() != nil {
			return
		}
		if refused != nil {
			s.record(*refused)
			attempt++
		} else {
			s.joined(i, conn, hello)
			err := s.stay(ctx, i, conn)
			_ = conn.CloseNow()
			if ctx.Err() != nil {
				s.gone(i, hello)
				return
			}
			s.left(i, hello, err)
			attempt, returning = 0, true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.opt.Reconnect.Delay(attempt, rng)):
		}
	}
}

// connect does one handshake and hears the hello; the Record says why it did not
// succeed.
func (s *Swarm) connect(ctx context.Context, i int, returning bool) (*websocket.Conn, Hello, *Record) {
	select {
	case s.tokens <- struct{}{}:
		defer func() { <-s.tokens }()
	case <-ctx.Done():
		return nil, Hello{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.Handshake)
	defer cancel()
	url := s.opt.URLs[i%len(s.opt.URLs)]
	if returning {
		url += "?returning=1"
	}
	conn, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: s.http})
	refused := &Record{At: time.Now(), Client: i, Kind: Refused}
	if resp != nil && err != nil {
		refused.Status = resp.StatusCode
	}
	var hello Hello
	if err == nil {
		hello, err = hear(ctx, conn)
	}
	if err != nil {
		refused.Cause = err.Error()
		return nil, Hello{}, refused
	}
	return conn, hello, nil
}

func hear(ctx context.Context, conn *websocket.Conn) (Hello, error) {
	_, b, err := conn.Read(ctx)
	var h Hello
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err == nil && h.Instance == "" {
		err = fmt.Errorf("the first message is %q and names no instance", b)
	}
	if err != nil {
		_ = conn.CloseNow()
		return Hello{}, fmt.Errorf("hello: %w", err)
	}
	return h, nil
}

// stay reads until the connection ends and returns why.
func (s *Swarm) stay(ctx context.Context, i int, conn *websocket.Conn) error {
	for {
		_, r, err := conn.Reader(ctx)
		if err != nil {
			return err
		}
		var b [64]byte
		n, err := io.ReadFull(r, b[:])
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		s.heard(i, string(b[:n]))
	}
}

// ping has one client after the other send a message, so that each does every
// Options.Ping.
func (s *Swarm) ping(ctx context.Context) {
	tick := time.NewTicker(max(s.opt.Ping/time.Duration(s.opt.Clients), time.Microsecond))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % s.opt.Clients {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		conn := s.conns[i]
		s.mu.Unlock()
		if conn != nil {
			send(ctx, conn, pingPrefix+strconv.FormatInt(time.Now().UnixNano(), 10))
		}
	}
}

// send writes a message; if it cannot, the reader learns that the connection ended.
func send(ctx context.Context, conn *websocket.Conn, text string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = conn.Write(ctx, websocket.MessageText, []byte(text))
}
