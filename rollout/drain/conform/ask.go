package conform

import (
	"bytes"
	"cmp"
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

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// instance is the one under check, as its endpoint shows it.
type instance struct {
	opt         Options
	http        *http.Client
	connect     *url.URL
	unreachable string // why the rules about connections are not checked; empty: they are
	peer        net.Addr
	epoch       uint64 // the newest that was used
	seen        *descent
	can         []contract.Ability // as it says
	streams     *http.Transport    // of gRPC, once there was one
	ticket      string             // what its clients bring; empty: none
}

const rolloutName = "conform"

// newInstance is of options that passed Check.
func newInstance(o Options) *instance {
	in := &instance{opt: o}
	in.opt.Connections = cmp.Or(o.Connections, 20)
	in.opt.URL = strings.TrimSuffix(strings.TrimSuffix(o.URL, "/"), "/drain")
	if in.opt.Dial == nil {
		in.opt.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	in.unreachable = "no address to connect to was given"
	if u, err := url.Parse(o.Connect); err == nil && o.Connect != "" {
		in.connect, in.unreachable = u, ""
	}
	in.http = &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true, // each question stands alone
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := in.opt.Dial(ctx, network, addr)
				if err == nil {
					in.peer = c.RemoteAddr()
				}
				return c, err
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return in
}

// answer is what came back to one request.
type answer struct {
	code int
	body []byte
}

func (in *instance) ask(ctx context.Context, method, token, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, in.opt.URL+"/drain", strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := in.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return answer{}, fmt.Errorf("%s /drain: %w", method, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return answer{}, fmt.Errorf("%s /drain: %w", method, err)
	}
	return answer{code: res.StatusCode, body: bytes.TrimSpace(b)}, nil
}

// say asks with the token and demands the status in the answer.
func (in *instance) say(ctx context.Context, method string, word any) (contract.Status, error) {
	body := ""
	if word != nil {
		b, err := json.Marshal(word)
		if err != nil {
			return contract.Status{}, err
		}
		body = string(b)
	}
	a, err := in.ask(ctx, method, in.opt.Token, body)
	if err != nil {
		return contract.Status{}, err
	}
	s, err := a.status()
	if err != nil {
		return s, fmt.Errorf("%s %s: %w", method, cmp.Or(body, "/drain"), err)
	}
	return s, nil
}

func (in *instance) status(ctx context.Context) (contract.Status, error) {
	return in.say(ctx, "GET", nil)
}

// order is one of a new epoch, at its first step.
func (in *instance) order(ctx context.Context, ceiling *int, over, start time.Duration) (contract.Order, contract.Status, error) {
	in.epoch++
	o := contract.Order{Rollout: rolloutName, Epoch: in.epoch, Step: 1, Ceiling: ceiling, OverMS: over.Milliseconds(), StartMS: start.Milliseconds()}
	s, err := in.say(ctx, "PUT", o)
	return o, s, err
}

// upTo is the ceiling of an order that lets n stay.
func upTo(n int) *int { return &n }

func (in *instance) release(ctx context.Context) (contract.Status, error) {
	return in.say(ctx, "DELETE", contract.Release{Rollout: rolloutName, Epoch: in.epoch})
}

// status reads the answer strictly: every word of the contract must be there.
func (a answer) status() (contract.Status, error) {
	if a.code != http.StatusOK {
		return contract.Status{}, fmt.Errorf("the answer is %d %s; it must be 200 with the status", a.code, short(a.body))
	}
	var words map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &words); err != nil || words == nil {
		return contract.Status{}, fmt.Errorf("the answer is %s and no JSON object", short(a.body))
	}
	for _, name := range []string{"state", "active", "accepted", "evicted", "returned", "limit", "ceiling", "epoch", "step"} {
		value, ok := words[name]
		if !ok {
			return contract.Status{}, fmt.Errorf("the status lacks %s: %s", name, short(a.body))
		}
		if string(value) == "null" && name != "returned" && name != "ceiling" {
			return contract.Status{}, fmt.Errorf("%s is null; only returned and ceiling may be", name)
		}
	}
	var s contract.Status
	if err := json.Unmarshal(a.body, &s); err != nil {
		var t *json.UnmarshalTypeError
		if errors.As(err, &t) {
			err = fmt.Errorf("%s is a %s; it must be of the type %s", t.Field, t.Value, t.Type)
		}
		return contract.Status{}, err
	}
	return s, s.Check()
}

func short(b []byte) string {
	if len(b) > 200 {
		return fmt.Sprintf("%.200q…", b)
	}
	return fmt.Sprintf("%q", b)
}
