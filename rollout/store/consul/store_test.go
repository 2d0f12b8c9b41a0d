//go:build real

package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

func TestStore(t *testing.T) {
	options := Options{Address: agent(t)}
	s := store(t, options)
	if all := load(t, s); len(all) != 0 {
		t.Fatalf("an empty Consul has %d states", len(all))
	}
	first := replace(t, s, "chat", state.Stored{}, encoded(t, "chat", 1))
	second := replace(t, s, "chat", first, encoded(t, "chat", 2))
	replace(t, s, "a/b", state.Stored{}, encoded(t, "a/b", 7))

	again := store(t, options)
	all := load(t, again)
	if len(all) != 2 || all["chat"].Version != second.Version || string(all["chat"].Data) != string(second.Data) {
		t.Fatalf("got %v", all)
	}
	for name, old := range map[string]state.Stored{"nothing": {}, "an older one": first} {
		if _, err := again.Replace(t.Context(), "chat", old, encoded(t, "chat", 3)); !errors.Is(err, state.ErrConflict) {
			t.Errorf("with %s: got %v; want a conflict", name, err)
		}
	}
	if _, err := again.Replace(t.Context(), "feed", second, encoded(t, "feed", 1)); !errors.Is(err, state.ErrConflict) {
		t.Errorf("a key that is not there: got %v; want a conflict", err)
	}
	replace(t, again, "chat", second, encoded(t, "chat", 3))

	t.Run("other prefix", func(t *testing.T) {
		options.Prefix = "other/place"
		other := store(t, options)
		replace(t, other, "chat", state.Stored{}, encoded(t, "chat", 1))
		if all := load(t, other); len(all) != 1 {
			t.Errorf("got %d states", len(all))
		}
	})
	t.Run("one of many wins", func(t *testing.T) { oneOfManyWins(t, s) })
	t.Run("large values", func(t *testing.T) { largeValues(t, s) })
	t.Run("unusable values", func(t *testing.T) { unusableValues(t, s) })
	t.Run("ended context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Replace(ctx, "late", state.Stored{}, encoded(t, "late", 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func oneOfManyWins(t *testing.T, s *Store) {
	var old state.Stored
	for round := range 5 {
		var wins atomic.Int32
		var winner atomic.Pointer[state.Stored]
		var all sync.WaitGroup
		for racer := range 8 {
			next := encoded(t, "race", uint64(100*round+racer+1))
			all.Go(func() {
				got, err := s.Replace(t.Context(), "race", old, next)
				switch {
				case err == nil:
					wins.Add(1)
					winner.Store(&got)
				case !errors.Is(err, state.ErrConflict):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if wins.Load() != 1 {
			t.Fatalf("round %d: %d of 8 won", round, wins.Load())
		}
		old = *winner.Load()
	}
}

func largeValues(t *testing.T, s *Store) {
	fleet := state.New("large", discovery.Blue)
	for i := range 5000 {
		id := discovery.InstanceID(fmt.Sprintf("large-%d-%x", i, rand.Uint64()))
		fleet.Members[id] = state.Member{Identity: state.Identity{ID: id, Colour: discovery.Blue, Drain: fmt.Sprintf("http://10.0.%d.%d:9002", i/250, i%250)}}
	}
	data, err := state.Encode(fleet)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("5000 members: %d bytes", len(data))
	stored := replace(t, s, "large", state.Stored{}, data)
	if got := load(t, s)["large"]; string(got.Data) != string(data) || got.Version != stored.Version {
		t.Errorf("what was stored is not what is read: %d of %d bytes", len(got.Data), len(data))
	}

	noise := make([]byte, mostStored-1000) // gzip makes it a little larger
	fill(noise)
	if _, err := s.Replace(t.Context(), "noise", state.Stored{}, noise); err != nil {
		t.Errorf("just below the limit: %v", err)
	}
	if _, err := s.client.KV().Delete(s.key("noise"), nil); err != nil {
		t.Fatal(err)
	}
	over := make([]byte, mostStored+1)
	fill(over)
	if _, err := s.Replace(t.Context(), "noise", state.Stored{}, over); err == nil || !strings.Contains(err.Error(), "even when compressed") {
		t.Errorf("above the limit: got %v", err)
	}
}

func fill(b []byte) {
	noise := rand.NewChaCha8([32]byte{1})
	_, _ = noise.Read(b)
}

func unusableValues(t *testing.T, s *Store) {
	good := string(encoded(t, "chat", 1))
	for name, test := range map[string]struct{ key, value, want string }{
		"cut short":     {"bad", good[:20], "restore it from a backup"},
		"empty":         {"bad", "", "restore it from a backup"},
		"no gzip":       {"bad", "\x1f\x8b\x00", "restore it from a backup"},
		"wrong service": {"bad", good, "it is the state of service chat"},
		"newer":         {"bad", `{"format":99,"service":"bad","lanes":[]}`, "run the newer rolloutd"},
		"odd name":      {"b/d", good, "its name is no service's"},
	} {
		t.Run(name, func(t *testing.T) {
			pair := &api.KVPair{Key: s.prefix + test.key, Value: []byte(test.value)}
			if _, err := s.client.KV().Put(pair, nil); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = s.client.KV().Delete(pair.Key, nil) }()
			_, err := s.Load(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), pair.Key) {
				t.Errorf("got %v; want the key and %q in it", err, test.want)
			}
		})
	}
}

func agent(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := fleet.StartConsul(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c.HTTP.String()
}

func store(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func load(t *testing.T, s *Store) map[discovery.Service]state.Stored {
	t.Helper()
	all, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func replace(t *testing.T, s *Store, service discovery.Service, old state.Stored, next []byte) state.Stored {
	t.Helper()
	got, err := s.Replace(t.Context(), service, old, next)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Data) != string(next) || got.Version == "" || got.Version == old.Version {
		t.Fatalf("stored %q as version %q", got.Data, got.Version)
	}
	return got
}

func encoded(t *testing.T, service discovery.Service, epoch uint64) []byte {
	t.Helper()
	s := state.New(service, discovery.Blue)
	s.Epoch = epoch
	data, err := state.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
