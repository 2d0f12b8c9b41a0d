// Package file keeps the rollouts' state in a folder: one JSON file per service,
// replaced durably, held by one rolloutd at a time.
package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// suffix ends the name of every state file. What else lies in the folder is left
// alone, except half-written files.
const suffix = ".json"

// halfWritten is what a file is called until it is complete.
var halfWritten = regexp.MustCompile(`^\..*\.json\d+$`)

// writers is how many states are on their way to the disk at a time. Each waits for it
// several times, in a thread of its own; disks are faster with many at once.
const writers = 16

// Store is a folder of states. Methods may be called concurrently.
type Store struct {
	dir  string
	lock *os.File
	disk chan string // the paths of spares: who has taken one may write

	mu    sync.Mutex
	turns map[discovery.Service]chan struct{} // capacity 1: one Replace at a time, from its read to its rename
}

// Open makes the folder if needed and holds it exclusively until Close or the
// end of the process, however that comes. It removes what a killed process left
// half-written.
func Open(dir string) (*Store, error) {
	if err := makeFolder(dir); err != nil {
		return nil, fmt.Errorf("state folder %s: %w; name a folder that rolloutd may write to", dir, err)
	}
	lock, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, lock: lock, disk: make(chan string, writers), turns: map[discovery.Service]chan struct{}{}}
	for i := range writers {
		s.disk <- filepath.Join(dir, fmt.Sprintf(".spare%s%d", suffix, i))
	}
	if err := s.sweep(); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// Close lets another process open the folder. No method may be called afterwards.
func (s *Store) Close() error { return s.lock.Close() }

// sweep removes half-written files: none of them was ever a state.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("state folder %s: %w", s.dir, err)
	}
	for _, e := range entries {
		if !halfWritten.MatchString(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("state folder %s: %w", s.dir, err)
		}
	}
	return nil
}

// Load returns every stored state. A file that is not exactly a state of the
// service it is named for is an error that names it; it is never overwritten.
func (s *Store) Load(ctx context.Context) (map[discovery.Service]state.Stored, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", s.dir, err)
	}
	all := map[discovery.Service]state.Stored{}
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if e.IsDir() || !strings.HasSuffix(e.Name(), suffix) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		service, err := serviceOf(e.Name())
		if err == nil {
			_, err = state.DecodeOf(service, data)
		}
		if err != nil {
			return nil, fmt.Errorf("state file %s cannot be used: %w", path, err)
		}
		all[service] = stored(data)
	}
	return all, nil
}

// Replace stores next if the file still is what old says. When it returns
// without an error next is on disk and survives a power cut; after
// state.ErrConflict nothing was written. After any other error either old or
// next is stored.
func (s *Store) Replace(ctx context.Context, service discovery.Service, old state.Stored, next []byte) (state.Stored, error) {
	if service == "" {
		return state.Stored{}, errors.New("a state needs the name of its service")
	}
	path := filepath.Join(s.dir, fileName(service))
	turn, spare := s.turn(service), ""
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return state.Stored{}, context.Cause(ctx)
	}
	select {
	case spare = <-s.disk:
		defer func() { s.disk <- spare }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return state.Stored{}, context.Cause(ctx)
	}
	var now state.Stored
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		now = stored(data)
	case !errors.Is(err, fs.ErrNotExist):
		return state.Stored{}, fmt.Errorf("store state of %s: %w", service, err)
	}
	if now.Version != old.Version {
		return state.Stored{}, fmt.Errorf("state file %s: %w", path, state.ErrConflict)
	}
	if err := write(path, spare, next); err != nil {
		return state.Stored{}, fmt.Errorf("store state of %s: %w; nothing is done before it can be stored", service, err)
	}
	return stored(next), nil
}

// turn is where the Replaces of a service wait for each other.
func (s *Store) turn(service discovery.Service) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns[service] == nil {
		s.turns[service] = make(chan struct{}, 1)
	}
	return s.turns[service]
}

// makeFolder survives a power cut like what is stored in it.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func stored(data []byte) state.Stored {
	sum := sha256.Sum256(data)
	return state.Stored{Data: data, Version: hex.EncodeToString(sum[:])}
}

// fileName is reversible and stays within the folder whatever the service is
// called; it never starts with a dot.
func fileName(service discovery.Service) string {
	name := url.PathEscape(string(service))
	if rest, dotted := strings.CutPrefix(name, "."); dotted {
		name = "%2E" + rest
	}
	return name + suffix
}

func serviceOf(name string) (discovery.Service, error) {
	unescaped, err := url.PathUnescape(strings.TrimSuffix(name, suffix))
	if service := discovery.Service(unescaped); err == nil && fileName(service) == name {
		return service, nil
	}
	return "", errors.New("its name is no service's; move it out of the folder")
}
