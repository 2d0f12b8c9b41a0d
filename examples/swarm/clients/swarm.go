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
	// ComeOver has clients that are asked to (docs/asked-first.md) open a new connection
	// before they end the old one. Otherwise they hear it and stay.
	ComeOver bool
	// Seed makes the delays repeatable.
	Seed uint64
	// Logger gets one line per disconnect at debug level; nil logs nothing.
	Logger *slog.Logger
}

// Swarm is the clients. Its methods may be called concurrently; Run once.
type Swarm struct {
	opt     Options
	http    *http.Client
	tokens  chan struct{} // one for each handshake under way
	running sync.WaitGroup

	mu         sync.Mutex
	records    []Record
	counts     Counts
	lines      []*line       // by client, the newest; nil while it is not connected
	inboxes    []inbox       // by client
	unanswered int           // of lines that have ended
	check      uint64        // the newest Check
	unheard    map[int]bool  // clients whose answer it still waits for
	slowest    time.Duration // echo of a ping since the last SlowestEcho
	changed    chan struct{} // closed at the next change; nil when nobody waits
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
		lines:   make([]*line, opt.Clients),
		inboxes: make([]inbox, opt.Clients),
		unheard: map[int]bool{},
	}, nil
}

// Run connects every client and keeps it connected until ctx ends; then it
// closes all connections, which is no disconnect in the records, and returns nil.
func (s *Swarm) Run(ctx context.Context) error {
	for i := range s.opt.Clients {
		s.running.Go(func() {
			rng := rand.New(rand.NewPCG(s.opt.Seed, uint64(i)))
			s.live(ctx, s.arrive(ctx, i, 0, nil, rng), rng)
		})
	}
	if s.opt.Ping > 0 {
		s.running.Go(func() { s.ping(ctx) })
	}
	s.running.Wait()
	return nil
}

// live is the life of a client from a connection on: it stays, and comes back when the
// connection has ended. Who comes over lives on in the new connection.
func (s *Swarm) live(ctx context.Context, l *line, rng *rand.Rand) {
	for l != nil {
		err := s.stay(ctx, l, rng)
		_ = l.conn.CloseNow()
		s.end(l, err, ctx.Err() != nil)
		if ctx.Err() != nil || l.leaving {
			return
		}
		l = s.arrive(ctx, l.client, s.opt.Reconnect.Delay(0, rng), nil, rng)
	}
}

// arrive dials, after delay, until the client is connected; nil when ctx ended before. A
// client that comes over has the older line before.
func (s *Swarm) arrive(ctx context.Context, client int, delay time.Duration, before *line, rng *rand.Rand) *line {
	for attempt := 1; ; attempt++ {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		conn, hello, refused := s.connect(ctx, client)
		switch {
		case ctx.Err() != nil:
			if conn != nil {
				_ = conn.CloseNow()
			}
			return nil
		case refused == nil:
			return s.joined(client, conn, hello, before)
		}
		s.record(*refused)
		delay = s.opt.Reconnect.Delay(attempt, rng)
	}
}

// connect does one handshake and hears the hello; the Record says why it did not
// succeed.
func (s *Swarm) connect(ctx context.Context, i int) (*websocket.Conn, Hello, *Record) {
	select {
	case s.tokens <- struct{}{}:
		defer func() { <-s.tokens }()
	case <-ctx.Done():
		return nil, Hello{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.Handshake)
	defer cancel()
	url := s.opt.URLs[i%len(s.opt.URLs)]
	if s.known(i) {
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

// stay reads until the connection ends and returns why. A client that is asked to come
// over does so meanwhile.
func (s *Swarm) stay(ctx context.Context, l *line, rng *rand.Rand) error {
	for {
		_, r, err := l.conn.Reader(ctx)
		if err != nil {
			return err
		}
		var b [128]byte
		n, err := io.ReadFull(r, b[:])
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		if asked := s.heard(l, b[:n]); asked && s.opt.ComeOver && !l.leaving {
			l.leaving = true
			s.running.Go(func() { s.comeOver(ctx, l, rng) })
		}
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
		l := s.lines[i]
		if l != nil {
			l.pending++
		}
		s.mu.Unlock()
		if l != nil {
			send(ctx, l.conn, pingPrefix+strconv.FormatInt(time.Now().UnixNano(), 10))
		}
	}
}

// send writes a message; if it cannot, the reader learns that the connection ended.
func send(ctx context.Context, conn *websocket.Conn, text string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = conn.Write(ctx, websocket.MessageText, []byte(text))
}
