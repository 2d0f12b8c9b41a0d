package control

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// shelf is a Store in memory.
type shelf struct {
	mu     sync.Mutex
	data   map[discovery.Service]rollout.Stored
	writes int
	fail   error
	hangs  bool // every request takes until its context ends
}

func (s *shelf) Load(ctx context.Context) (map[discovery.Service]rollout.Stored, error) {
	if s.hung(ctx) {
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.data), s.fail
}

func (s *shelf) Replace(ctx context.Context, service discovery.Service, old rollout.Stored, next []byte) (rollout.Stored, error) {
	if s.hung(ctx) {
		return rollout.Stored{}, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return rollout.Stored{}, s.fail
	}
	if s.data[service].Version != old.Version {
		return rollout.Stored{}, rollout.ErrConflict
	}
	s.writes++
	s.data[service] = rollout.Stored{Data: next, Version: fmt.Sprint(s.writes)}
	return s.data[service], nil
}

func (s *shelf) hang(hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangs = hangs
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

func (s *shelf) state(t *testing.T, service discovery.Service) rollout.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, err := rollout.DecodeStateOf(service, s.data[service].Data)
	if err != nil {
		t.Errorf("what is stored of %s: %v", service, err)
	}
	return state
}

func (s *shelf) has(service discovery.Service) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data[service].Version != ""
}
