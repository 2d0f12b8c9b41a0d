package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// shelf is a Store in memory.
type shelf struct {
	mu     sync.Mutex
	data   map[discovery.Service]state.Stored
	writes int
	fail   error
	hangs  bool                       // every request takes until its context ends
	stuck  map[discovery.Service]bool // so does every write of these services
	delay  time.Duration              // of every write that succeeds
	kept   map[discovery.Service][][]byte
}

func (s *shelf) Load(ctx context.Context) (map[discovery.Service]state.Stored, error) {
	if s.hung(ctx) {
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.data), s.fail
}

func (s *shelf) Replace(ctx context.Context, service discovery.Service, old state.Stored, next []byte) (state.Stored, error) {
	s.mu.Lock()
	stuck, delay := s.stuck[service], s.delay
	s.mu.Unlock()
	if stuck {
		<-ctx.Done()
	}
	if stuck || s.hung(ctx) {
		return state.Stored{}, ctx.Err()
	}
	time.Sleep(delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return state.Stored{}, s.fail
	}
	if s.data[service].Version != old.Version {
		return state.Stored{}, state.ErrConflict
	}
	s.writes++
	s.data[service] = state.Stored{Data: next, Version: fmt.Sprint(s.writes)}
	if s.kept == nil {
		s.kept = map[discovery.Service][][]byte{}
	}
	s.kept[service] = append(s.kept[service], next)
	return s.data[service], nil
}

func (s *shelf) hang(hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangs = hangs
}

// stick has the writes of these services hang, and of no others.
func (s *shelf) stick(names ...discovery.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = map[discovery.Service]bool{}
	for _, name := range names {
		s.stuck[name] = true
	}
}

func (s *shelf) slow(delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = delay
}

// stored reports whether such a state was ever stored of the service; the newest are
// looked at first.
func (s *shelf) stored(t *testing.T, service discovery.Service, is func(state.State) bool) bool {
	s.mu.Lock()
	all := append([][]byte{s.data[service].Data}, s.kept[service]...)
	s.mu.Unlock()
	return slices.ContainsFunc(all, func(data []byte) bool {
		stored, err := state.DecodeOf(service, data)
		if err != nil {
			t.Errorf("what is stored of %s: %v", service, err)
		}
		return is(stored)
	})
}

func (s *shelf) hung(ctx context.Context) bool {
	s.mu.Lock()
	hangs := s.hangs
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
	}
	return hangs
}

func (s *shelf) broken(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *shelf) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

func (s *shelf) read(service discovery.Service) state.Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data[service]
}

func (s *shelf) state(t *testing.T, service discovery.Service) state.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, err := state.DecodeOf(service, s.data[service].Data)
	if err != nil {
		t.Errorf("what is stored of %s: %v", service, err)
	}
	return stored
}
