package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client speaks the contract with instances. It must come from NewClient; its
// methods may be called concurrently. base is the endpoint's address without
// /drain, such as "http://10.0.0.5:9002".
//
// An instance whose process is gone is recognised by
// errors.Is(err, syscall.ECONNREFUSED), a request that the instance refused by
// errors.As and a *Refused; every other error leaves open whether it was heard.
type Client struct {
	// Timeout bounds each request. Default 2s; set it before the first one.
	Timeout time.Duration
	// Dial connects to an instance. Nil is the machine's network; set it before
	// the first request.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Token, if set before the first request, is asked for the token of each request,
	// in place of NewClient's: it may be replaced.
	Token func() string

	token string
	http  *http.Client
}

// Refused is the instance's refusal of a request: nothing was changed.
type Refused struct {
	Code int    // HTTP status: 409 for an older order or release, 401 for a wrong token
	Text string // the instance's sentence
}

func (r *Refused) Error() string { return fmt.Sprintf("refused with %d: %s", r.Code, r.Text) }

// NewClient returns a client that sends the bearer token, or none if it is
// empty. It keeps at most one idle connection per instance, for 3 s.
func NewClient(token string) *Client {
	c := &Client{Timeout: 2 * time.Second, token: token}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:            c.dial,
			MaxIdleConnsPerHost:    1,
			MaxIdleConns:           4096, // a large fleet's are not all kept
			IdleConnTimeout:        3 * time.Second,
			ReadBufferSize:         1 << 9,
			WriteBufferSize:        1 << 9,
			MaxResponseHeaderBytes: 16 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// MaxBody bounds what either side of the contract reads, in bytes.
const MaxBody = 64 << 10

var network = net.Dialer{KeepAlive: 15 * time.Second}

func (c *Client) dial(ctx context.Context, proto, addr string) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx, proto, addr)
	}
	return network.DialContext(ctx, proto, addr)
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the counts.
func (c *Client) Status(ctx context.Context, base string) (Status, error) {
	return c.do(ctx, http.MethodGet, base, nil)
}

// Order gives an order; the same one may be given again. An order that needs abilities
// is given only to an instance whose status says, just before, that it has them;
// otherwise the error is an *Unable. The Pick is a wish and no such word: to an instance
// that refuses it, as one does that is older than it, the order is given without.
func (c *Client) Order(ctx context.Context, base string, o Order) (Status, error) {
	if err := c.able(ctx, base, o.Needs()); err != nil {
		return Status{}, err
	}
	if o.Pick == Random {
		o.Pick = "" // it is what they do unasked
	}
	if o.Level == Rollout {
		o.Level = ""
	}
	s, err := c.do(ctx, http.MethodPut, base, o)
	var r *Refused
	if errors.As(err, &r) && r.Code == http.StatusBadRequest && o.Pick != "" {
		o.Pick = ""
		s, err = c.do(ctx, http.MethodPut, base, o)
	}
	if err != nil {
		return s, err
	}
	l := s.LevelOf(o.LevelName())
	if l.Epoch < o.Epoch || l.Epoch == o.Epoch && l.Step < o.Step {
		return Status{}, fmt.Errorf("drain %s: it took the order of epoch %d step %d, but answers that its last is epoch %d step %d",
			base, o.Epoch, o.Step, l.Epoch, l.Step)
	}
	return s, nil
}

// Release has the instance serve again, as far as the release's level refused; the same
// one may be given again. It needs abilities as an order does.
func (c *Client) Release(ctx context.Context, base string, r Release) (Status, error) {
	if err := c.able(ctx, base, r.Needs()); err != nil {
		return Status{}, err
	}
	if r.Level == Rollout {
		r.Level = ""
	}
	return c.do(ctx, http.MethodDelete, base, r)
}

// able asks an instance whether it can, if anything is needed.
func (c *Client) able(ctx context.Context, base string, needs []Ability) error {
	if len(needs) == 0 {
		return nil
	}
	s, err := c.Status(ctx, base)
	if lacks := s.Lacks(needs); err == nil && lacks != nil {
		err = fmt.Errorf("drain %s: %w", base, &Unable{lacks})
	}
	return err
}

func (c *Client) do(ctx context.Context, method, base string, body any) (Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Timeout, silence(c.Timeout))
	defer cancel()
	s, err := c.roundTrip(ctx, method, base, body)
	if err == nil {
		return s, nil
	}
	// What net/http wraps around the cause repeats method and address.
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return Status{}, fmt.Errorf("drain %s: %w", base, err)
}

// silence is that no answer came in time; it is a context.DeadlineExceeded.
type silence time.Duration

func (s silence) Error() string { return "no answer within " + time.Duration(s).String() }
func (s silence) Unwrap() error { return context.DeadlineExceeded }

func (c *Client) roundTrip(ctx context.Context, method, base string, body any) (Status, error) {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return Status{}, err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+"/drain", sent)
	if err != nil {
		return Status{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	token := c.token
	if c.Token != nil {
		token = c.Token()
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return Status{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, MaxBody+1))
	switch {
	case err != nil:
		return Status{}, err
	case len(answer) > MaxBody:
		return Status{}, fmt.Errorf("the answer is larger than %d bytes", MaxBody)
	case res.StatusCode != http.StatusOK:
		return Status{}, &Refused{Code: res.StatusCode, Text: sentence(answer, res.StatusCode)}
	}
	return parseStatus(answer)
}

// sentence is the error of a refusal, or what its code means if it has none.
func sentence(answer []byte, code int) string {
	var said struct{ Error string }
	if json.Unmarshal(answer, &said) == nil && said.Error != "" && len(said.Error) <= 1000 {
		return said.Error
	}
	if text := http.StatusText(code); text != "" {
		return text
	}
	return "no reason given"
}

// parseStatus reads an answer. Unknown fields are left alone, for newer
// instances; a count that is missing is an error and not 0.
func parseStatus(b []byte) (Status, error) {
	var a struct {
		Status
		Active   *int    `json:"active"`
		Accepted *uint64 `json:"accepted"`
		Evicted  *uint64 `json:"evicted"`
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return Status{}, fmt.Errorf("the answer is no drain status: %w", err)
	}
	if a.Active == nil || a.Accepted == nil || a.Evicted == nil {
		return Status{}, errors.New("the answer is no drain status: it must have active, accepted and evicted")
	}
	a.Status.Active, a.Status.Accepted, a.Status.Evicted = *a.Active, *a.Accepted, *a.Evicted
	if a.Limit > MaxConnections {
		a.Limit = 0 // the largest number there is, say, which is how many write "no limit"
	}
	if err := a.Check(); err != nil {
		return Status{}, fmt.Errorf("the answer is no drain status: %w", err)
	}
	return a.Status, nil
}
