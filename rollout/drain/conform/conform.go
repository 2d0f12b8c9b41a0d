// Package conform checks any implementation of the drain contract against every
// rule of it, from outside: it asks the endpoint what a control plane asks, and
// things that it must refuse, and watches what becomes of connections that it
// opens itself. It imports the standard library and the contract's words only.
package conform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Options say which instance is checked.
type Options struct {
	// URL is the endpoint's address without /drain, such as "http://10.0.0.5:9100".
	URL string
	// Token is shown to the endpoint; empty: none.
	Token string
	// Connect is where the instance itself, no proxy before it, takes connections:
	// ws://HOST:PORT/PATH, wss://…, tcp://HOST:PORT, or for the streams of a method
	// grpc://HOST:PORT/PACKAGE.SERVICE/METHOD, where ?one-request ends the client's side
	// after one message. Empty: the rules about connections are not checked.
	Connect string
	// Connections is how many are open at once. Default 20, at least 8.
	Connections int
	// Force checks an instance that drains or holds connections already. It then
	// serves at the end, and of the connections no order takes one.
	Force bool
	// Dial connects to the instance. Nil is the machine's network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Check reports what is wrong with the options, in one sentence.
func (o Options) Check() error {
	if u, err := url.Parse(o.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is no address of a drain endpoint; write it like http://127.0.0.1:9100", o.URL)
	}
	if o.Connections != 0 && o.Connections < 8 {
		return fmt.Errorf("%d connections are too few to judge a pace; take at least 8", o.Connections)
	}
	if u, err := url.Parse(o.Connect); o.Connect != "" && (err != nil || u.Host == "" || u.Port() == "" || u.Scheme != "ws" && u.Scheme != "wss" && u.Scheme != "tcp" && u.Scheme != "grpc") {
		return fmt.Errorf("%q is no address to connect to; write it like ws://127.0.0.1:9000/ws, tcp://127.0.0.1:9000 or grpc://127.0.0.1:9000/package.Service/Method", o.Connect)
	}
	return nil
}

// Verdict is what came of one rule.
type Verdict string

const (
	Pass Verdict = "pass"
	Fail Verdict = "fail"
	// NotChecked: Result.Why says what was missing. Because of another rule only
	// when that one failed or was not checked either.
	NotChecked Verdict = "not checked"
)

// Result is the verdict on one rule.
type Result struct {
	Rule    string  `json:"rule"`
	Says    string  `json:"says"` // the rule
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why,omitempty"`  // empty: it passed
	Mend    string  `json:"mend,omitempty"` // what to change, where it failed
}

// Run tries, in their order, all Rules of version 1 of the contract and those of the
// abilities that the instance says it has, which takes about 20 s with connections
// and a second without, and reports each. It leaves the instance serving, without
// connections of its own, also when ctx ends in the middle. An error says why not
// all was tried or that the instance does not serve; failed rules are none.
func Run(ctx context.Context, o Options, report func(Result)) (err error) {
	if err := o.Check(); err != nil {
		return err
	}
	in := newInstance(o)
	if err := in.meet(ctx); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, in.leaveServing(ctx))
		if in.streams != nil {
			in.streams.CloseIdleConnections()
		}
	}()
	verdicts := map[string]Verdict{}
	for _, r := range Rules() {
		if !r.of(in.can) {
			continue
		}
		result := in.try(ctx, r, verdicts)
		if ctx.Err() != nil {
			return fmt.Errorf("conform %s: ended at the rule %s: %w", o.URL, r.Name, context.Cause(ctx))
		}
		verdicts[r.Name] = result.Verdict
		report(result)
	}
	return nil
}

func (in *instance) try(ctx context.Context, r Rule, verdicts map[string]Verdict) Result {
	result := Result{Rule: r.Name, Says: r.Says, Verdict: NotChecked}
	if r.connects {
		if result.Why = in.unreachable; result.Why != "" {
			return result
		}
	}
	for _, need := range r.needs {
		if verdicts[need] != Pass {
			result.Why = fmt.Sprintf("it builds on the rule %s, which did not pass", need)
			return result
		}
	}
	err := r.check(ctx, in)
	var why notChecked
	if errors.As(err, &why) {
		result.Why = why.Error()
		return result
	}
	result.Verdict = Pass
	if err != nil {
		result.Verdict, result.Why, result.Mend = Fail, err.Error(), mends[r.Name]
	}
	return result
}

// notChecked is why a rule was not checked.
type notChecked string

func (n notChecked) Error() string { return string(n) }

// meet asks for the first time and refuses to touch an instance that is at work.
func (in *instance) meet(ctx context.Context) error {
	a, err := in.ask(ctx, "GET", in.opt.Token, "")
	if err != nil {
		return fmt.Errorf("conform %s: %w", in.opt.URL, err)
	}
	if a.code == http.StatusUnauthorized {
		if in.opt.Token == "" {
			return fmt.Errorf("conform %s: it demands a token; show it with --token or --token-file", in.opt.URL)
		}
		return fmt.Errorf("conform %s: it refuses this token", in.opt.URL)
	}
	s, err := a.status()
	switch {
	case err != nil:
		return nil // the first rule says what is wrong
	case in.opt.Force:
	case s.State != contract.Serving:
		return fmt.Errorf("conform %s: it is %s, by order of rollout %q, and would serve again at the end; take another instance, or force it", in.opt.URL, s.State, s.Rollout)
	case s.Active > 0:
		return fmt.Errorf("conform %s: it holds %d connections; take one without clients, or force it, which leaves the rules about connections out", in.opt.URL, s.Active)
	}
	in.epoch, in.can = s.Epoch, s.Can
	if s.Active > 0 && in.unreachable == "" {
		in.unreachable = fmt.Sprintf("it holds %d connections that are not of this check", s.Active)
	}
	if s.State != contract.Serving {
		return in.leaveServing(ctx)
	}
	return nil
}

// leaveServing must be heard also when ctx has ended.
func (in *instance) leaveServing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	s, err := in.status(ctx)
	if err == nil && s.State != contract.Serving {
		s, err = in.release(ctx)
	}
	if err == nil && s.State != contract.Serving {
		err = fmt.Errorf("after a release its state is %s", s.State)
	}
	if err != nil {
		return fmt.Errorf("conform %s: it does not serve at the end: %w", in.opt.URL, err)
	}
	return nil
}
