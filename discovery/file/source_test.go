package file

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

// world is a Source on a real file, in fake time.
type world struct {
	t      *testing.T
	path   string
	source *Source
	log    bytes.Buffer
	mu     sync.Mutex
	emits  []discovery.Snapshot
}

func run(t *testing.T, path string, previous discovery.Snapshot) *world {
	t.Helper()
	w := &world{t: t, path: path}
	source, err := New(Options{
		Path: path, Services: []discovery.Service{"chat", "mail"}, Previous: previous,
		Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.source = source
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if err := source.Run(ctx, w.emit); err != context.Canceled {
			t.Errorf("Run ended with %v", err)
		}
	})
	t.Cleanup(func() { cancel(); all.Wait() })
	synctest.Wait()
	return w
}

func (w *world) emit(s discovery.Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.emits = append(w.emits, s)
}

// write replaces the content in place; a second later it must have been read.
func (w *world) write(content string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.second()
}

func (w *world) second() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// newest is what was emitted last; it fails unless that was the n-th time.
func (w *world) newest(n int) discovery.Snapshot {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.emits) != n {
		w.t.Fatalf("%d snapshots, want %d: %+v", len(w.emits), n, w.emits)
	}
	if n == 0 {
		return nil
	}
	return w.emits[n-1]
}

const (
	one = "services: {chat: [{id: a, colour: blue, address: 127.0.0.1:9001}]}\n"
	two = "services: {chat: [{id: a, colour: blue, address: 127.0.0.1:9001}, {id: b, colour: green, address: 127.0.0.1:9002}]}\n"
)

func fleet(t *testing.T, content string) discovery.Fleet {
	t.Helper()
	world, err := Parse("", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return world["chat"]
}

func TestAChangeIsReadWithinASecond(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	synctest.Test(t, func(t *testing.T) {
		w := run(t, path, nil)
		if w.newest(0); !strings.HasSuffix(w.source.Waiting()["chat"], "no such file or directory") {
			t.Fatalf("waiting %v", w.source.Waiting())
		}
		w.write(one)
		if got := w.newest(1); !got["chat"].Equal(fleet(t, one)) || len(got) != 2 || got["mail"].Instances == nil || len(w.source.Waiting()) != 0 {
			t.Fatalf("%+v, waiting %v", got, w.source.Waiting())
		}
		w.write("# a comment is no news\n" + one)
		w.newest(1)
		w.write(two)
		if got := w.newest(2); !got["chat"].Equal(fleet(t, two)) {
			t.Fatalf("%+v", got)
		}
		next := path + ".next"
		if err := os.WriteFile(next, []byte("services: {}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
		w.second()
		if got := w.newest(3); len(got["chat"].Instances) != 0 || got["chat"].Suspect != "" || got["chat"].Err != "" {
			t.Fatalf("a file that was emptied on purpose: %+v", got)
		}
	})
}

func TestABrokenFileKeepsTheLastGoodContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	synctest.Test(t, func(t *testing.T) {
		w := run(t, path, nil)
		w.write(two)
		for n, broken := range []struct{ content, err string }{
			{"services:\n  chat:\n    - {id: a, color: blue}\n", path + ":3: unknown key color; the last good content is kept"},
			{"", path + ": the file is empty; to have no instances write services: {}; the last good content is kept"},
		} {
			w.write(broken.content)
			got := w.newest(2 + n)["chat"]
			want := fleet(t, two)
			want.Err = broken.err
			if !got.Equal(want) {
				t.Fatalf("%+v\nwant %+v", got, want)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w.second()
		if got := w.newest(4)["mail"]; got.Err != path+": no such file or directory; the last good content is kept" {
			t.Fatalf("%+v", got)
		}
		w.write(two)
		if got := w.newest(5)["chat"]; !got.Equal(fleet(t, two)) {
			t.Fatalf("%+v", got)
		}
		if log := w.log.String(); strings.Count(log, "level=WARN") != 4 || strings.Count(log, "read again") != 2 {
			t.Fatalf("one line per change, and one for the missing file at the start:\n%s", log)
		}
	})
}

func TestAWriterInTheMiddleIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	synctest.Test(t, func(t *testing.T) {
		w := run(t, path, nil)
		w.write(two)
		time.Sleep(10 * time.Millisecond)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(poll + 20*time.Millisecond) // seen, not read yet
		w.write(one)
		if got := w.newest(2)["chat"]; !got.Equal(fleet(t, one)) {
			t.Fatalf("%+v", got)
		}
	})
}

func TestPreviousStandsInUntilTheFileCanBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	synctest.Test(t, func(t *testing.T) {
		w := run(t, path, discovery.Snapshot{"chat": fleet(t, two), "mail": {}, "gone": {}})
		got := w.newest(1)
		if len(got) != 2 || len(got["chat"].Instances) != 2 || got["chat"].Err == "" || len(w.source.Waiting()) != 0 {
			t.Fatalf("%+v", got)
		}
	})
}

func TestServicesThatNobodyAskedForAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	synctest.Test(t, func(t *testing.T) {
		w := run(t, path, nil)
		w.write("services: {chat: [], chta: [], mial: []}\n")
		if got := w.newest(1); len(got) != 2 || !strings.Contains(w.log.String(), `unused="[chta mial]"`) {
			t.Fatalf("%+v\n%s", got, w.log.String())
		}
	})
}
