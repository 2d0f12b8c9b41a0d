package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

const (
	// watchGap is the least time between two lines of a watch.
	watchGap = 200 * time.Millisecond
	// watchBeat is the most: times such as the ETA move even when nothing does.
	watchBeat = 5 * time.Second
	// watchWrite is how long a client may take to read one line.
	watchWrite = 10 * time.Second
)

// watch says the whole world, one JSON line per change, newest wins: a slow
// client misses lines and never gets old ones. ?service= keeps one service.
func (s Server) watch(w http.ResponseWriter, r *http.Request) {
	only := discovery.Service(r.URL.Query().Get("service"))
	if err := s.Ready(); err != nil {
		refuse(w, notReady(err))
		return
	}
	if views, _ := s.Views(); only != "" {
		if _, ok := views[only]; !ok {
			refuse(w, unknown(only, views))
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	for {
		views, newer := s.Views()
		world := LookAll(views, time.Now().UTC())
		if only != "" {
			world = world.Only(only)
		}
		_ = out.SetWriteDeadline(time.Now().Add(watchWrite))
		if json.NewEncoder(w).Encode(world) != nil || out.Flush() != nil {
			return
		}
		if !pause(r, watchGap, nil) || !pause(r, watchBeat-watchGap, newer) {
			return
		}
	}
}

// pause waits for d or for wake; false when the client has gone.
func pause(r *http.Request, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.Context().Done():
		return false
	case <-wake:
	case <-t.C:
	}
	return true
}

// Only keeps one service.
func (w World) Only(name discovery.Service) World {
	kept := World{At: w.At, Services: []Status{}}
	for _, s := range w.Services {
		if s.Service == name {
			kept.Services = append(kept.Services, s)
		}
	}
	return kept
}
