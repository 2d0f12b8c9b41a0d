package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/bearer"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

// Server is what the handler needs of the program around it. Every function may
// be called concurrently.
type Server struct {
	// Views returns every service and a channel that is closed when there is a
	// newer value.
	Views func() (map[discovery.Service]rollout.View, <-chan struct{})
	// Do carries out a command; a *rollout.Refusal says that nothing was changed.
	Do func(context.Context, rollout.Command) (rollout.Answer, error)
	// Plan computes a promotion without doing it, and asks the gates.
	Plan func(context.Context, discovery.Service, discovery.Colour, policy.Overrides) (rollout.Plan, error)
	// Proxies lists every proxy, sorted by node.
	Proxies func() []Proxy
	// Reports is what proxies report here, for the other replicas.
	Reports func() exchange.Reports
	// Reread has every proxy read the files of its certificates again, and says how many
	// certificates these are; nil: there is nobody to tell.
	Reread func() int
	// Ready says what has not been read yet; nil when everything has been.
	Ready   func() error
	Metrics http.Handler
	Version string
	// Token guards everything but /healthz and /readyz; empty guards nothing.
	Token string
}

// maxBody bounds the body of a command.
const maxBody = 64 << 10

// Handler serves /v1, /metrics, /healthz and /readyz. GET /v1/watch runs until
// its client goes or the request's context ends, so a server that shuts down
// cancels its base context first.
func (s Server) Handler() http.Handler {
	v1 := http.NewServeMux()
	v1.HandleFunc("GET /v1/version", func(w http.ResponseWriter, r *http.Request) { say(w, Version{s.Version}) })
	v1.HandleFunc("GET /v1/openapi.json", describe)
	v1.HandleFunc("GET /v1/status", s.ready(s.status))
	v1.HandleFunc("GET /v1/watch", s.watch)
	v1.HandleFunc("GET /v1/instances", s.ready(s.instances))
	v1.HandleFunc("GET /v1/proxies", s.proxies)
	v1.HandleFunc("POST /v1/proxies/forget", s.ready(s.forget))
	v1.HandleFunc("POST /v1/certs/reload", s.ready(s.reread))
	v1.HandleFunc("GET /v1/reports", func(w http.ResponseWriter, r *http.Request) { say(w, s.Reports()) })
	v1.HandleFunc("GET /v1/services/{service}", s.ready(s.service))
	v1.HandleFunc("GET /v1/services/{service}/plan", s.ready(s.plan))
	v1.HandleFunc("GET /v1/services/{service}/history", s.ready(s.history))
	v1.HandleFunc("POST /v1/services/{service}/promote", s.command(promote))
	v1.HandleFunc("POST /v1/services/{service}/pace", s.command(setPace))
	v1.HandleFunc("POST /v1/services/{service}/pause", s.command(plain(func(n discovery.Service, m state.Message) rollout.Command {
		return rollout.Pause{Service: n, Message: m}
	})))
	v1.HandleFunc("POST /v1/services/{service}/resume", s.command(plain(func(n discovery.Service, m state.Message) rollout.Command {
		return rollout.Resume{Service: n, Message: m}
	})))
	v1.HandleFunc("POST /v1/services/{service}/abort", s.command(plain(func(n discovery.Service, m state.Message) rollout.Command {
		return rollout.Abort{Service: n, Message: m}
	})))
	v1.HandleFunc("POST /v1/services/{service}/adopt", s.command(adopt))
	v1.Handle("GET /metrics", s.Metrics)

	// A page in the operator's browser must not be able to promote.
	guarded := http.NewCrossOriginProtection().Handler(s.authorize(v1))
	all := http.NewServeMux()
	all.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	all.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n"+s.unread())
	})
	all.Handle("/", guarded)
	return all
}

// unread names the services that discovery could not tell of since the start, one a
// line.
func (s Server) unread() string {
	var out strings.Builder
	views, _ := s.Views()
	for _, name := range slices.Sorted(maps.Keys(views)) {
		if why := views[name].Seen.Fleet.Unread; why != "" {
			fmt.Fprintf(&out, "service %s has not been read from discovery: %s\n", name, why)
		}
	}
	return out.String()
}

// authorize demands the bearer token.
func (s Server) authorize(next http.Handler) http.Handler {
	if s.Token == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !bearer.Shown(r, s.Token) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, &rollout.Refusal{Code: Unauthorized, Text: "this rolloutd demands a token and yours is missing or wrong; name the file that holds it with --token-file"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ready refuses what needs a complete view before there is one.
func (s Server) ready(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.Ready(); err != nil {
			refuse(w, notReady(err))
			return
		}
		next(w, r)
	}
}

func notReady(err error) *rollout.Refusal {
	return &rollout.Refusal{Code: rollout.NotReady, Text: fmt.Sprintf("rolloutd is not ready yet (%v); try again in a moment", err)}
}

func (s Server) status(w http.ResponseWriter, r *http.Request) {
	views, _ := s.Views()
	say(w, LookAll(views, time.Now().UTC()))
}

func (s Server) service(w http.ResponseWriter, r *http.Request) {
	if v, ok := s.view(w, r); ok {
		say(w, Look(v, time.Now().UTC()))
	}
}

func (s Server) history(w http.ResponseWriter, r *http.Request) {
	if v, ok := s.view(w, r); ok {
		say(w, append([]state.Record{}, v.State.History...))
	}
}

// view finds the service of the path, or says that there is none.
func (s Server) view(w http.ResponseWriter, r *http.Request) (rollout.View, bool) {
	views, _ := s.Views()
	name := discovery.Service(r.PathValue("service"))
	v, ok := views[name]
	if !ok {
		refuse(w, unknown(name, views))
	}
	return v, ok
}

func unknown(name discovery.Service, views map[discovery.Service]rollout.View) *rollout.Refusal {
	known := "there is none yet"
	if len(views) > 0 {
		known = "there is " + list(slices.Sorted(maps.Keys(views)))
	}
	return &rollout.Refusal{Code: rollout.UnknownService, Text: fmt.Sprintf("no service is called %q; %s", name, known)}
}

func list(names []discovery.Service) string {
	words := make([]string, len(names))
	for i, n := range names {
		words[i] = string(n)
	}
	return strings.Join(words, ", ")
}

func (s Server) instances(w http.ResponseWriter, r *http.Request) {
	views, _ := s.Views()
	out := []ServiceInstances{}
	for _, st := range LookAll(views, time.Now()).Services {
		out = append(out, ServiceInstances{Service: st.Service, Instances: st.Instances, LeftOut: st.LeftOut})
	}
	say(w, out)
}

func (s Server) proxies(w http.ResponseWriter, r *http.Request) {
	all := append([]Proxy{}, s.Proxies()...)
	for i, p := range all {
		all[i].Holds = append([]Holding{}, p.Holds...)
		all[i].Nacks = append([]Rejection{}, p.Nacks...)
		all[i].Withheld = append([]Withheld{}, p.Withheld...)
	}
	say(w, all)
}

func (s Server) plan(w http.ResponseWriter, r *http.Request) {
	v, ok := s.view(w, r)
	if !ok {
		return
	}
	target, over, err := planQuery(r.URL.Query())
	if err != nil {
		refuse(w, badRequest(err))
		return
	}
	plan, err := s.Plan(r.Context(), v.State.Service, target, over)
	if err != nil {
		refuse(w, err)
		return
	}
	say(w, plan)
}

// command decodes the body strictly, carries the command out and says the answer.
func (s Server) command(decode func(discovery.Service, []byte) (rollout.Command, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			refuse(w, badRequest(fmt.Errorf("the body cannot be read: %w", err)))
			return
		}
		c, err := decode(discovery.Service(r.PathValue("service")), body)
		if err != nil {
			refuse(w, badRequest(err))
			return
		}
		answer, err := s.Do(r.Context(), c)
		if err != nil {
			refuse(w, err)
			return
		}
		say(w, answer)
	}
}

func say(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// refuse says why nothing was done.
func refuse(w http.ResponseWriter, err error) {
	var body refusal
	body.Error.Code, body.Error.Text = Internal, err.Error()
	code := http.StatusInternalServerError
	if r, ok := errors.AsType[*rollout.Refusal](err); ok {
		body.Error.Code, body.Error.Text = r.Code, r.Text
		code = httpStatus(r.Code)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func httpStatus(c rollout.Code) int {
	switch c {
	case rollout.UnknownService, rollout.UnknownProxy:
		return http.StatusNotFound
	case rollout.BadRequest:
		return http.StatusBadRequest
	case rollout.NotReady, rollout.NotStored:
		return http.StatusServiceUnavailable
	case Unauthorized:
		return http.StatusUnauthorized
	}
	return http.StatusConflict
}
