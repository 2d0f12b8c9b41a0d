package file

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/state"
)

func TestReplaceAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	s := open(t, dir)
	first := replace(t, s, "chat", state.Stored{}, encoded(t, "chat", 1))
	second := replace(t, s, "chat", first, encoded(t, "chat", 2))
	for _, odd := range []discovery.Service{"a/b", "..", ".", "ö %", "a.json"} {
		replace(t, s, odd, state.Stored{}, encoded(t, odd, 7))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all := load(t, open(t, dir))
	if len(all) != 6 || all["chat"].Version != second.Version || string(all["chat"].Data) != string(second.Data) {
		t.Fatalf("got %d states, chat %q; want 6 and %q", len(all), all["chat"].Data, second.Data)
	}
	if outside, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(outside) != 1 {
		t.Fatalf("something was written outside the folder: %v, %v", outside, err)
	}
}

func TestReplaceNeedsWhatIsStored(t *testing.T) {
	s := open(t, t.TempDir())
	first := replace(t, s, "chat", state.Stored{}, encoded(t, "chat", 1))
	second := replace(t, s, "chat", first, encoded(t, "chat", 2))
	for name, old := range map[string]state.Stored{"nothing": {}, "an older one": first, "another": {Version: "x"}} {
		if _, err := s.Replace(t.Context(), "chat", old, encoded(t, "chat", 3)); !errors.Is(err, state.ErrConflict) {
			t.Errorf("with %s: got %v; want a conflict", name, err)
		}
	}
	if _, err := s.Replace(t.Context(), "feed", second, encoded(t, "feed", 1)); !errors.Is(err, state.ErrConflict) {
		t.Errorf("for a service of which nothing is stored: got %v; want a conflict", err)
	}
	// What another hand wrote is read before it would be replaced.
	plant(t, s, "chat.json", encoded(t, "chat", 9))
	if _, err := s.Replace(t.Context(), "chat", second, encoded(t, "chat", 3)); !errors.Is(err, state.ErrConflict) {
		t.Errorf("after a change from outside: got %v; want a conflict", err)
	}
}

func TestOneOfManyReplacesWins(t *testing.T) {
	s := open(t, t.TempDir())
	old := state.Stored{}
	for round := range 20 {
		var wins atomic.Int32
		var winner atomic.Pointer[state.Stored]
		var all sync.WaitGroup
		for racer := range 8 {
			next := encoded(t, "chat", uint64(100*round+racer+1))
			all.Go(func() {
				got, err := s.Replace(t.Context(), "chat", old, next)
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
		if stored := load(t, s)["chat"]; stored.Version != old.Version {
			t.Fatalf("round %d: what is stored is not what won", round)
		}
	}
}

func TestHalfWrittenFilesAreNoStates(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	replace(t, s, "chat", state.Stored{}, encoded(t, "chat", 1))
	plant(t, s, ".chat.json123456", encoded(t, "chat", 2)[:20])
	others := []string{"README", ".#chat.json", ".chat.json.swp"}
	for _, name := range others {
		plant(t, s, name, []byte("not ours"))
	}
	if all := load(t, s); len(all) != 1 {
		t.Fatalf("got %d states; want 1", len(all))
	}
	s.Close()
	if all := load(t, open(t, dir)); len(all) != 1 {
		t.Fatalf("after a restart: got %d states; want 1", len(all))
	}
	if _, err := os.Stat(filepath.Join(dir, ".chat.json123456")); !os.IsNotExist(err) {
		t.Errorf("the half-written file is still there: %v", err)
	}
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("a file that is not ours was touched: %v", err)
		}
	}
}

func TestWhoReadsAStateReadsItWhole(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first := replace(t, s, "chat", state.Stored{}, encoded(t, "chat", 1))
	backup, err := os.Open(filepath.Join(dir, "chat.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Close()
	now := first
	for i := range 5 * writers {
		now = replace(t, s, "chat", now, encoded(t, "chat", uint64(i+2)))
	}
	got, err := io.ReadAll(backup)
	if err != nil || string(got) != string(first.Data) {
		t.Errorf("a backup that began before reads %q, %v; want the state of then", got, err)
	}
	files, err := os.ReadDir(dir)
	if want := writers + 2; err != nil || len(files) > want {
		t.Errorf("%d files lie in the folder, want at most %d: the state, the lock, and spare ones (%v)", len(files), want, err)
	}
}

func TestUnusableFilesStopTheStart(t *testing.T) {
	good := encoded(t, "chat", 1)
	for name, test := range map[string]struct {
		file string
		data []byte
		want string
	}{
		"cut short":     {"chat.json", good[:len(good)/2], "restore it from a backup"},
		"empty":         {"chat.json", nil, "restore it from a backup"},
		"trailing":      {"chat.json", append(good[:len(good):len(good)], "}"...), "restore it from a backup"},
		"wrong service": {"feed.json", good, "it is the state of service chat"},
		"newer":         {"chat.json", []byte(`{"format":99,"service":"chat","lanes":{}}`), "run the newer rolloutd"},
		"odd name":      {"%63hat.json", good, "its name is no service's"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, test.file)
			if err := os.WriteFile(path, test.data, 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir)
			_, err := s.Load(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v; want the path and %q in it", err, test.want)
			}
			if _, err := s.Replace(t.Context(), "chat", state.Stored{}, good); test.file == "chat.json" && !errors.Is(err, state.ErrConflict) {
				t.Errorf("writing over it: got %v; want a conflict", err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(test.data) {
				t.Errorf("the file was changed: %q, %v", after, err)
			}
		})
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(blocked, "state")); err == nil || !strings.Contains(err.Error(), "name a folder that rolloutd may write to") {
		t.Errorf("beneath a file: got %v", err)
	}

	readOnly := filepath.Join(dir, "state")
	s := open(t, readOnly)
	first := replace(t, s, "chat", state.Stored{}, encoded(t, "chat", 1))
	for _, d := range []string{filepath.Dir(dir), dir, readOnly} {
		if err := os.Chmod(d, 0o555); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(d, 0o755) })
	}
	asNobody(func() {
		if _, err := s.Replace(t.Context(), "chat", first, encoded(t, "chat", 2)); err == nil || !strings.Contains(err.Error(), "permission denied; nothing is done before it can be stored") {
			t.Errorf("replace in a read-only folder: got %v", err)
		}
		if _, err := Open(readOnly); err == nil || !strings.Contains(err.Error(), "permission denied; name a folder that rolloutd may write to") {
			t.Errorf("open a read-only folder: got %v", err)
		}
	})
	if stored := load(t, s)["chat"]; stored.Version != first.Version {
		t.Error("the state was changed")
	}
}

// asNobody runs f without root's power over permissions, on a thread of its own
// that ends with it.
func asNobody(f func()) {
	var done sync.WaitGroup
	done.Go(func() {
		if os.Geteuid() == 0 {
			runtime.LockOSThread()
			_ = syscall.Setfsuid(65534)
		}
		f()
	})
	done.Wait()
}

func TestEndedContextWritesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := s.Replace(ctx, "chat", state.Stored{}, encoded(t, "chat", 1)); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if all := load(t, s); len(all) != 0 {
		t.Errorf("got %d states", len(all))
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // closed twice where the test did so
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

func plant(t *testing.T, s *Store, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What somebody has put where the state was is not taken for a spare file, at the last
// moment either: later states would fail on it.
func TestADirectoryIsNoSpare(t *testing.T) {
	path, spare := filepath.Join(t.TempDir(), "chat.json"), filepath.Join(t.TempDir(), ".spare")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := write(path, spare, []byte("{}")); err == nil || !strings.Contains(err.Error(), "is no file any more") {
			t.Errorf("write said %v", err)
		}
		if at, err := os.Lstat(path); err != nil || !at.IsDir() {
			t.Errorf("what was there: %v, %v", at, err)
		}
		if at, err := os.Lstat(spare); err != nil || !at.Mode().IsRegular() {
			t.Errorf("the spare file: %v, %v", at, err)
		}
	}
}
