package main

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
)

// rereadEvery is how often the token files are read.
const rereadEvery = time.Second

// tokens are the tokens that rolloutd shows and demands, each as its file holds it: they
// are replaced there while rolloutd runs. A file that cannot be read leaves its token as
// it was. Methods may be called concurrently.
type tokens struct {
	logger *slog.Logger

	mu   sync.Mutex
	kept map[string]kept // by key of the configuration
}

type kept struct {
	file    config.Token
	token   string
	trouble string // why the file cannot be read; empty when it can
}

func newTokens(conf *config.Config, logger *slog.Logger) *tokens {
	t := &tokens{logger: logger, kept: map[string]kept{}}
	for _, x := range conf.Tokens() {
		if x.File != "" {
			t.kept[x.Key] = kept{file: x, token: *x.Held}
		}
	}
	return t
}

// of is what the token of a key is at the moment; empty without one.
func (t *tokens) of(key string) func() string {
	return func() string {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.kept[key].token
	}
}

// run rereads until ctx ends.
func (t *tokens) run(ctx context.Context) error {
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			t.reread()
		}
	}
}

// reread takes over what the files hold now.
func (t *tokens) reread() {
	t.mu.Lock()
	all := make(map[string]kept, len(t.kept))
	maps.Copy(all, t.kept)
	t.mu.Unlock()
	for key, k := range all {
		token, err := k.file.Read()
		switch {
		case err != nil && err.Error() != k.trouble:
			t.logger.Error("token file cannot be read: the token from before is used", "key", key, "error", err)
			k.trouble = err.Error()
		case err == nil && token != k.token:
			t.logger.Info("token was replaced", "key", key)
			k.token, k.trouble = token, ""
		case err == nil:
			k.trouble = ""
		}
		t.mu.Lock()
		t.kept[key] = k
		t.mu.Unlock()
	}
}

// demanding serves what handler makes for a token, anew for each one.
func demanding(token func() string, handler func(token string) http.Handler) http.Handler {
	var mu sync.Mutex
	made, shown := http.Handler(nil), ""
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := token()
		mu.Lock()
		if made == nil || shown != now {
			made, shown = handler(now), now
		}
		h := made
		mu.Unlock()
		h.ServeHTTP(w, r)
	})
}
