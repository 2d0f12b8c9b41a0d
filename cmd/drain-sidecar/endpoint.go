package main

import (
	"encoding/json"
	"net/http"

	"github.com/sluice-proxy/sluice/sidecar"
)

// image is GET /version: which program runs, and how often it was upgraded in place.
type image struct {
	Version  string `json:"version"`
	Upgrades int    `json:"upgrades"`
}

// wishes are what is asked of the program beside the contract.
type wishes struct {
	shutdown chan struct{}   // capacity 1: it is asked for once
	upgrade  chan chan error // answered if it was not possible
}

// handler is the drain endpoint and beside it, for whom it answers, POST /shutdown, as
// SIGTERM, POST /upgrade and GET /version.
func handler(car *sidecar.Sidecar, now image, w wishes) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", car.Endpoint())
	guarded := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, car.Guard(h)) }
	guarded("POST /shutdown", func(rw http.ResponseWriter, _ *http.Request) {
		select {
		case w.shutdown <- struct{}{}:
		default: // it was asked before
		}
		rw.WriteHeader(http.StatusAccepted)
	})
	guarded("POST /upgrade", func(rw http.ResponseWriter, r *http.Request) {
		failed := make(chan error, 1)
		select {
		case w.upgrade <- failed:
		case <-r.Context().Done():
			return
		}
		select {
		case err := <-failed:
			http.Error(rw, err.Error(), http.StatusConflict)
		case <-r.Context().Done():
		}
	})
	guarded("GET /version", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(now)
	})
	return mux
}
