package api

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
)

// Forgetting is the body of POST /v1/proxies/forget: an operator's word that a proxy is
// gone, for every service that waits for it.
type Forgetting struct {
	Node string `json:"node"`
}

// forget has every service that waits for a proxy forget it. Nothing is changed where it
// is connected to any.
func (s Server) forget(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		refuse(w, badRequest(fmt.Errorf("the body cannot be read: %w", err)))
		return
	}
	var of Forgetting
	if err := decode(body, &of); err != nil {
		refuse(w, badRequest(err))
		return
	}
	if slices.ContainsFunc(s.Proxies(), func(p Proxy) bool { return p.Connected && p.Node == of.Node }) {
		refuse(w, &rollout.Refusal{Code: rollout.ProxyConnected, Text: fmt.Sprintf("proxy %s is connected, so it is not gone; stop that Envoy first", of.Node)})
		return
	}
	views, _ := s.Views()
	var done []discovery.Service
	for _, name := range slices.Sorted(maps.Keys(views)) {
		if _, waits := slices.BinarySearch(views[name].State.Proxies, of.Node); !waits {
			continue
		}
		if _, err := s.Do(r.Context(), rollout.Forget{Service: name, Node: of.Node}); err != nil {
			refuse(w, err) // what is forgotten stays so; asking again does the rest
			return
		}
		done = append(done, name)
	}
	if len(done) == 0 {
		refuse(w, &rollout.Refusal{Code: rollout.UnknownProxy, Text: fmt.Sprintf("no service waits for a proxy %q; rolloutctl proxies lists them", of.Node)})
		return
	}
	say(w, rollout.Answer{Text: fmt.Sprintf("proxy %s is taken for gone: not waited for any more by %s", of.Node, list(done))})
}
