package api

import (
	"net/http"

	"github.com/sluice-proxy/sluice/rollout"
)

// reread has every proxy read the files of its certificates again: POST /v1/certs/reload.
func (s Server) reread(w http.ResponseWriter, _ *http.Request) {
	if s.Reread == nil || s.Reread() == 0 {
		say(w, rollout.Answer{Text: "no listener has tls, so there is no certificate to read"})
		return
	}
	say(w, rollout.Answer{Text: "the proxies that are connected to this rolloutd read the files of their certificates again; proxies shows who refuses them"})
}
