package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

// ErrNoServer: nothing could be reached at the server's address, so nothing was
// asked of it.
var ErrNoServer = errors.New("no rolloutd answers")

const (
	// answerTimeout bounds one question and its answer, the watch excepted.
	answerTimeout = 30 * time.Second
	// watchSilence is how long a watch may say nothing before it counts as lost.
	watchSilence = 3 * watchBeat
)

// Client asks a rolloutd. Safe for concurrent use. Every method may return a
// *rollout.Refusal or an error that is ErrNoServer.
type Client struct {
	base *url.URL
	// TokenNow, if set before the first request, is asked for the token of each
	// request, in place of NewClient's: it may be replaced.
	TokenNow func() string

	token   string
	message state.Message
	http    *http.Client
}

// Saying is the same client, whose commands carry a message.
func (c *Client) Saying(m state.Message) *Client {
	said := *c
	said.message = m
	return &said
}

// NewClient returns a client of the rolloutd at a base URL such as
// "http://127.0.0.1:18001"; an empty token sends none.
func NewClient(server, token string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%q is no address of a rolloutd; write it like http://127.0.0.1:18001", server)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	return &Client{base: u, token: token, http: &http.Client{Transport: t}}, nil
}

// Version is which rolloutd answers.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	return v, c.get(ctx, &v, nil, "version")
}

// Status is every service.
func (c *Client) Status(ctx context.Context) (w World, err error) {
	return w, c.get(ctx, &w, nil, "status")
}

// Service is one service.
func (c *Client) Service(ctx context.Context, name discovery.Service) (s Status, err error) {
	return s, c.get(ctx, &s, nil, "services", string(name))
}

// Plan is what the promotion would do; Force is not looked at.
func (c *Client) Plan(ctx context.Context, name discovery.Service, p Promotion) (plan rollout.Plan, err error) {
	return plan, c.get(ctx, &plan, p.query(), "services", string(name), "plan")
}

// History is the service's finished rollouts, oldest first.
func (c *Client) History(ctx context.Context, name discovery.Service) (h []state.Record, err error) {
	return h, c.get(ctx, &h, nil, "services", string(name), "history")
}

// Instances is every service's instances, sorted by service.
func (c *Client) Instances(ctx context.Context) (all []ServiceInstances, err error) {
	return all, c.get(ctx, &all, nil, "instances")
}

// Reports is what proxies report to that rolloutd.
func (c *Client) Reports(ctx context.Context) (all exchange.Reports, err error) {
	return all, c.get(ctx, &all, nil, "reports")
}

// Proxies is every proxy, sorted by node.
func (c *Client) Proxies(ctx context.Context) (all []Proxy, err error) {
	return all, c.get(ctx, &all, nil, "proxies")
}

// Forget says that a proxy is gone.
func (c *Client) Forget(ctx context.Context, node string) (a rollout.Answer, err error) {
	data, err := json.Marshal(Forgetting{node})
	if err != nil {
		return a, err
	}
	return a, c.exchange(ctx, http.MethodPost, nil, data, &a, "proxies", "forget")
}

// ReloadCerts has every proxy read the files of its certificates again.
func (c *Client) ReloadCerts(ctx context.Context) (a rollout.Answer, err error) {
	return a, c.exchange(ctx, http.MethodPost, nil, nil, &a, "certs", "reload")
}

// Promote starts a promotion.
func (c *Client) Promote(ctx context.Context, name discovery.Service, p Promotion) (rollout.Answer, error) {
	if p.Message == "" {
		p.Message = c.message
	}
	return c.post(ctx, name, "promote", p)
}

// Pause closes nothing more until Resume.
func (c *Client) Pause(ctx context.Context, name discovery.Service) (rollout.Answer, error) {
	return c.post(ctx, name, "pause", saying{c.message})
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, name discovery.Service) (rollout.Answer, error) {
	return c.post(ctx, name, "resume", saying{c.message})
}

// Abort goes back, paced.
func (c *Client) Abort(ctx context.Context, name discovery.Service) (rollout.Answer, error) {
	return c.post(ctx, name, "abort", saying{c.message})
}

// Adopt says which colour is live where nothing is stored.
func (c *Client) Adopt(ctx context.Context, name discovery.Service, live discovery.Colour) (rollout.Answer, error) {
	return c.post(ctx, name, "adopt", adoption{Live: live})
}

// SetPace changes the cap of the running rollout.
func (c *Client) SetPace(ctx context.Context, name discovery.Service, f units.Funnel) (rollout.Answer, error) {
	return c.post(ctx, name, "pace", pacing{f, c.message})
}

// Watch yields the world at each change until the stream ends, which it does
// with an error; then nothing more comes. An empty name watches every service.
func (c *Client) Watch(ctx context.Context, name discovery.Service) iter.Seq2[World, error] {
	return func(yield func(World, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		silence := time.AfterFunc(watchSilence, func() {
			cancel(fmt.Errorf("rolloutd at %s said nothing for %s", c.base.Host, watchSilence))
		})
		defer silence.Stop()
		query := url.Values{}
		if name != "" {
			query.Set("service", string(name))
		}
		body, err := c.ask(ctx, http.MethodGet, query, nil, "watch")
		if err != nil {
			yield(World{}, err)
			return
		}
		defer body.Close()
		for lines := json.NewDecoder(bufio.NewReader(body)); ; {
			var w World
			if err := lines.Decode(&w); err != nil {
				yield(World{}, c.lost(ctx, err))
				return
			}
			silence.Reset(watchSilence)
			if !yield(w, nil) {
				return
			}
		}
	}
}

func (c *Client) lost(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("the watch of rolloutd at %s ended: %w", c.base.Host, err)
}

func (c *Client) get(ctx context.Context, into any, q url.Values, path ...string) error {
	return c.exchange(ctx, http.MethodGet, q, nil, into, path...)
}

func (c *Client) post(ctx context.Context, name discovery.Service, verb string, body any) (a rollout.Answer, err error) {
	data, err := json.Marshal(body)
	if err != nil {
		return a, err
	}
	return a, c.exchange(ctx, http.MethodPost, nil, data, &a, "services", string(name), verb)
}

func (c *Client) exchange(ctx context.Context, method string, q url.Values, body []byte, into any, path ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout,
		fmt.Errorf("rolloutd at %s gave no answer within %s; look at its log", c.base.Host, answerTimeout))
	defer cancel()
	answer, err := c.ask(ctx, method, q, body, path...)
	if err != nil {
		return err
	}
	defer answer.Close()
	if err := json.NewDecoder(answer).Decode(into); err != nil {
		return fmt.Errorf("the answer of rolloutd at %s broke off (%w); rolloutctl status shows what holds", c.base.Host, err)
	}
	return nil
}

// ask returns the body of a 2xx answer, or why there is none.
func (c *Client) ask(ctx context.Context, method string, q url.Values, body []byte, path ...string) (io.ReadCloser, error) {
	for i, p := range path {
		path[i] = url.PathEscape(p)
	}
	u := c.base.JoinPath(append([]string{"v1"}, path...)...)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	token := c.token
	if c.TokenNow != nil {
		token = c.TokenNow()
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(ctx, err)
	}
	if res.StatusCode/100 == 2 {
		return res.Body, nil
	}
	defer res.Body.Close()
	var r refusal
	if err := json.NewDecoder(io.LimitReader(res.Body, maxBody)).Decode(&r); err != nil || r.Error.Text == "" {
		return nil, fmt.Errorf("what answers at %s is no rolloutd of this version (%s); check --server", c.base.Host, strings.ToLower(res.Status))
	}
	if r.Error.Code == Internal {
		return nil, errors.New(r.Error.Text)
	}
	return nil, &rollout.Refusal{Code: r.Error.Code, Text: r.Error.Text}
}

// unanswered tells a server that is not there from an answer that was lost.
func (c *Client) unanswered(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("%w at %s (%w); is it running, and is --server right?", ErrNoServer, c.base.Host, op.Err)
	}
	return fmt.Errorf("the answer of rolloutd at %s was lost (%w); rolloutctl status shows what holds", c.base.Host, err)
}
