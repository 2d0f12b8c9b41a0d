package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/internal/secret"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// remote is a running drain-sidecar, as its drain endpoint answers.
type remote struct {
	base   string
	token  string
	client *contract.Client
}

// wait is "drain-sidecar wait URL": it has the sidecar let its connections go as on
// SIGTERM and returns when none is left. What a supervisor runs before it ends a
// server must not return before.
func wait(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("drain-sidecar wait", flag.ContinueOnError)
	timeout := flags.Duration("timeout", 0, "the longest to wait; 0 is as long as it takes")
	r, code := dial(flags, args, stderr)
	if r == nil {
		return code
	}
	defer r.client.Close()
	if *timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *timeout)
		defer cancel()
	}
	err := r.post(ctx, "/shutdown")
	if err == nil {
		err = r.untilEmpty(ctx)
	}
	if err != nil {
		fmt.Fprintf(stderr, "drain-sidecar wait: %v\n", err)
		return 1
	}
	return 0
}

// dial reads the arguments of a command that talks to a running sidecar; nil says
// that it ends now, with the code.
func dial(flags *flag.FlagSet, args []string, stderr io.Writer) (r *remote, code int) {
	flags.SetOutput(stderr)
	file := flags.String("token-file", "", "`file` with the bearer token that guards the drain endpoint")
	flags.Usage = func() {
		fmt.Fprintf(stderr, "Usage: %s [flags] http://127.0.0.1:9002\n", flags.Name())
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, 0
	case err != nil:
		return nil, 2
	}
	base, err := url.Parse(flags.Arg(0))
	if err != nil || flags.NArg() != 1 || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.Path != "" && base.Path != "/" {
		fmt.Fprintf(stderr, "%s: name the drain endpoint alone, such as http://127.0.0.1:9002\n", flags.Name())
		return nil, 2
	}
	r = &remote{base: base.Scheme + "://" + base.Host}
	if *file != "" {
		if r.token, err = secret.File(*file); err != nil {
			fmt.Fprintf(stderr, "%s: --token-file: %v\n", flags.Name(), err)
			return nil, 2
		}
	}
	r.client = contract.NewClient(r.token)
	return r, 0
}

// post asks the sidecar for something beside the contract.
func (r *remote) post(ctx context.Context, path string) error {
	res, err := r.do(ctx, http.MethodPost, path)
	if err == nil {
		_ = res.Body.Close()
	}
	return err
}

// do asks, each time by a connection of its own. A refusal is an error.
func (r *remote) do(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	res, err := http.DefaultClient.Do(req)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return nil, fmt.Errorf("%w: %w", errCut, err)
	case err != nil:
		return nil, fmt.Errorf("nothing is known of the sidecar, it has ended or the address is wrong: %w", err)
	case res.StatusCode/100 != 2:
		defer res.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return nil, fmt.Errorf("%s answers %s: %s", r.base+path, res.Status, said)
	}
	return res, nil
}

// untilEmpty returns when the sidecar is drained, or has ended.
func (r *remote) untilEmpty(ctx context.Context) error {
	var last contract.Status
	for {
		s, err := r.client.Status(ctx, r.base)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("it still holds %d connections, %d requests are under way and %d linger: %w", last.Active, last.Requests, last.Lingering, context.Cause(ctx))
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
			return nil // it took the order, so it was there, and ends when it is empty
		case err != nil:
			return err
		case s.State == contract.Drained:
			return nil
		}
		last = s
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
