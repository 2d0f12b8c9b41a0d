package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"
)

// errCut: the connection ended without an answer.
var errCut = errors.New("no answer")

// upgrade is "drain-sidecar upgrade URL": it has the sidecar begin the program that is
// at its path now, in the same process, and returns when that answers.
func upgrade(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("drain-sidecar upgrade", flag.ContinueOnError)
	r, code := dial(flags, args, stderr)
	if r == nil {
		return code
	}
	defer r.client.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	now, err := r.upgrade(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "drain-sidecar upgrade: %v\n", err)
		return 1
	}
	fmt.Fprintf(stdout, "upgraded: drain-sidecar %s, upgrade %d of this process\n", now.Version, now.Upgrades)
	return 0
}

func (r *remote) upgrade(ctx context.Context) (now image, err error) {
	before, err := r.version(ctx)
	if err != nil {
		return now, err
	}
	if err := r.post(ctx, "/upgrade"); err != nil && !errors.Is(err, errCut) {
		return now, err
	}
	for ctx.Err() == nil {
		if now, err = r.version(ctx); err == nil && now.Upgrades > before.Upgrades {
			return now, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return now, fmt.Errorf("it was begun, and nothing is known of how it ended: %w", errors.Join(context.Cause(ctx), err))
}

func (r *remote) version(ctx context.Context) (v image, err error) {
	res, err := r.do(ctx, http.MethodGet, "/version")
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	return v, json.NewDecoder(io.LimitReader(res.Body, 4<<10)).Decode(&v)
}
