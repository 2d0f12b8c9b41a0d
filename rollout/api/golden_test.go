package api_test

import (
	"bytes"
	"context"
	"encoding"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// asked is one request of rolloutd while the service chat is at a moment of
// rollout/testdata/states.
type asked struct {
	moment       string // "archive: moment"
	method, path string
	body         string
	server       func(*api.Server) // changes the program around the handler
}

// answers are the golden files in testdata/v1: what is asked, and what is answered
// byte for byte.
var answers = map[string]func(t *testing.T) []asked{
	"status": func(t *testing.T) []asked {
		var all []asked
		for _, moment := range []string{
			"promotion: new", "promotion: steady", "promotion: opening", "promotion: canary, acknowledged", "promotion: confirming",
			"promotion: draining, in grace", "promotion: draining, in a step", "promotion: paused", "promotion: soaking", "promotion: done",
			"aborts: aborting while draining", "batches: the second batch", "in place: spilling", "window: nobody returns", "hooks: failed", "asked: in mid notice",
			"gates: closed", "lost: left behind", "superseded: superseded", "superseded: retired",
			"window: done", "untold: nobody is back", "untold: done", "many events: done",
		} {
			all = append(all, asked{moment: moment, method: "GET", path: "services/chat"})
		}
		return all
	},
	"others": func(t *testing.T) []asked {
		at := func(moment, path string) asked { return asked{moment: moment, method: "GET", path: path} }
		return []asked{
			at("gates: closed", "status"), at("gates: closed", "watch"), at("gates: closed", "watch?service=chat"), at("gates: closed", "instances"),
			at("gates: closed", "proxies"), at("gates: closed", "version"),
			at("promotion: steady", "services/chat/history"), at("superseded: done", "services/chat/history"), at("lost: done", "services/chat/history"), at("untold: done", "services/chat/history"), at("aborts: aborted", "services/chat/history"),
			at("promotion: steady", "services/chat/plan?target=green"),
			at("promotion: steady", "services/chat/plan?target=green&close=5&every=2s&grace=1s&canary=5%25&soak=2m&window=30&stagger=1&stagger_soak=1m&deadline=10s"),
			at("asked: in mid notice", "services/chat/plan?target=green"), at("promotion: done", "services/chat/plan?target=blue"), at("hooks: failed", "services/chat/plan?target=green"),
		}
	},
	"commands": func(t *testing.T) []asked {
		do := func(moment, verb, body string) asked {
			return asked{moment: moment, method: "POST", path: "services/chat/" + verb, body: body}
		}
		return []asked{
			do("promotion: steady", "promote", `{"target":"green"}`), do("promotion: steady", "promote", `{"target":"blue"}`),
			do("promotion: steady", "promote", `{"target":"green","close":500,"every":"3s","canary":"5%","soak":"2m","grace":"1s","window":9,"stagger":"50%","stagger_soak":"1m","deadline":"1s","force":true}`),
			do("promotion: draining, in a step", "pause", ""), do("promotion: paused", "pause", ""), do("promotion: paused", "resume", "{}"),
			do("promotion: draining, in a step", "pace", `{"close":3,"every":"1s"}`), do("promotion: draining, in a step", "pace", `{"close":10,"every":"3s"}`),
			do("promotion: draining, in a step", "abort", ""), do("aborts: aborting while draining", "abort", ""),
			do("superseded: a newer blue", "promote", `{"target":"blue","force":true}`),
			{moment: "promotion: steady", method: "POST", path: "certs/reload"},
			{moment: "lost: one died, one left, a proxy went", method: "POST", path: "proxies/forget", body: `{"node":"edge-2"}`, server: func(s *api.Server) {
				s.Do = func(_ context.Context, c rollout.Command) (rollout.Answer, error) {
					return rollout.Answer{Text: fmt.Sprintf("%T", c)}, nil
				}
			}},
		}
	},
	"refusals": func(t *testing.T) []asked {
		do := func(moment, verb, body string) asked {
			return asked{moment: moment, method: "POST", path: "services/chat/" + verb, body: body}
		}
		with := func(a asked, change func(*api.Server)) asked { a.server = change; return a }
		fails := func(err error) func(*api.Server) {
			return func(s *api.Server) {
				s.Do = func(context.Context, rollout.Command) (rollout.Answer, error) { return rollout.Answer{}, err }
			}
		}
		return []asked{
			do("promotion: steady", "promote", ``), do("promotion: steady", "promote", `{"target":"purple"}`), do("promotion: steady", "promote", `{"target":"green","closed":1}`),
			do("promotion: steady", "promote", `{"target":"green","close":0}`), do("promotion: steady", "pace", `{"close":0,"every":"3s"}`),
			do("promotion: steady", "pace", `{"close":3,"every":"1s"}`), do("promotion: steady", "pause", ""), do("promotion: steady", "resume", ""),
			do("promotion: steady", "abort", ""), do("promotion: draining, in a step", "resume", ""), do("promotion: draining, in a step", "promote", `{"target":"green"}`),
			do("promotion: draining, in a step", "promote", `{"target":"blue"}`), do("promotion: confirming", "promote", `{"target":"blue"}`),
			do("aborts: draining the way back", "promote", `{"target":"green"}`), do("superseded: retired", "promote", `{"target":"green"}`),
			do("promotion: new", "promote", `{"target":"green"}`), do("many events: done", "promote", `{"target":"blue","deadline":"1s"}`),
			{moment: "promotion: steady", method: "POST", path: "proxies/forget", body: `{"node":"edge-1"}`},
			{moment: "promotion: steady", method: "POST", path: "proxies/forget", body: `{"node":"edge-9"}`},
			{moment: "promotion: steady", method: "GET", path: "services/mail"}, {moment: "promotion: steady", method: "GET", path: "watch?service=mail"},
			{moment: "promotion: steady", method: "GET", path: "services/chat/plan"}, {moment: "promotion: steady", method: "GET", path: "services/chat/plan?target=green&speed=1"},
			{moment: "promotion: steady", method: "GET", path: "nothing"}, {moment: "promotion: steady", method: "DELETE", path: "services/chat/promote"},
			with(do("promotion: steady", "pause", ""), fails(&rollout.Refusal{Code: rollout.NotStored, Text: "chat: nothing was changed: the next state cannot be stored: no space left on device; mend the store and try again"})),
			with(do("promotion: steady", "pause", ""), fails(errors.New("it broke"))),
			with(do("promotion: steady", "pause", ""), func(s *api.Server) { s.Token = "secret" }),
			with(asked{moment: "promotion: steady", method: "GET", path: "status"}, func(s *api.Server) {
				s.Ready = func() error { return errors.New("chat is not read from Consul yet") }
			}),
		}
	},
}

func TestV1(t *testing.T) {
	moments := moments(t)
	for name, list := range answers {
		t.Run(name, func(t *testing.T) {
			got := &txtar.Archive{}
			for _, a := range list(t) {
				m, ok := moments[a.moment]
				if !ok {
					t.Fatalf("there is no moment %q", a.moment)
				}
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(time.Until(m.at))
					title := strings.TrimSpace(fmt.Sprintf("%s /v1/%s %s", a.method, a.path, a.body))
					got.Files = append(got.Files, txtar.File{Name: title + " @ " + a.moment, Data: a.answer(m)})
				})
			}
			path := filepath.Join("testdata", "v1", name+".txtar")
			if *update {
				if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range got.Files {
				if i >= len(want.Files) || f.Name != want.Files[i].Name || !bytes.Equal(f.Data, want.Files[i].Data) {
					t.Errorf("%s\n%s\nis not what %s has", f.Name, f.Data, path)
				}
			}
			if len(got.Files) != len(want.Files) {
				t.Errorf("%d answers, %s has %d", len(got.Files), path, len(want.Files))
			}
		})
	}
}

// answer asks and returns the status, what kind of answer it is, and the answer.
func (a asked) answer(m moment) []byte {
	s := m.server()
	if a.server != nil {
		a.server(&s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if strings.HasPrefix(a.path, "watch") {
		cancel() // after the first line
	}
	defer cancel()
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(ctx, a.method, "/v1/"+a.path, strings.NewReader(a.body)))
	return fmt.Appendf(nil, "%d %s\n%s", rec.Code, rec.Header().Get("Content-Type"), rec.Body)
}

// TestV1HasEveryKey: no key of the answers is in no golden file, where its loss
// would not show.
func TestV1HasEveryKey(t *testing.T) {
	var all []byte
	for name := range answers {
		data, err := os.ReadFile(filepath.Join("testdata", "v1", name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	for _, of := range []reflect.Type{
		reflect.TypeFor[api.World](), reflect.TypeFor[api.ServiceInstances](), reflect.TypeFor[api.Proxy](), reflect.TypeFor[api.Version](),
		reflect.TypeFor[rollout.Plan](), reflect.TypeFor[state.Record](), reflect.TypeFor[rollout.Answer](),
	} {
		for path, key := range keys(of, of.Name()) {
			if !bytes.Contains(all, []byte(`"`+key+`":`)) {
				t.Errorf("no golden file has %s (%s)", key, path)
			}
		}
	}
}

// keys yields the keys that encoding/json gives a type, and where they stand.
func keys(of reflect.Type, at string) iter.Seq2[string, string] {
	return func(yield func(path, key string) bool) {
		for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Map}, of.Kind()) {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || of.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
			return
		}
		for f := range of.Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			path := at + "." + f.Name
			if key != "" && key != "-" && !yield(path, key) {
				return
			}
			if f.IsExported() || f.Anonymous {
				for p, k := range keys(f.Type, path) {
					if !yield(p, k) {
						return
					}
				}
			}
		}
	}
}

// moment is a stored state and when it was stored.
type moment struct {
	state state.State
	at    time.Time
}

// moments reads rollout/testdata/states, by "archive: moment".
func moments(t *testing.T) map[string]moment {
	files, err := filepath.Glob("../testdata/states/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no states: %v", err)
	}
	all := map[string]moment{}
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			name, when, _ := strings.Cut(f.Name, " @")
			at, err := time.Parse(time.RFC3339Nano, when)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.SplitAfter(f.Data, []byte("\n"))
			stored, err := state.Decode(lines[len(lines)-2])
			if err != nil {
				t.Fatalf("%s: %s: %v", path, f.Name, err)
			}
			all[strings.TrimSuffix(filepath.Base(path), ".txtar")+": "+name] = moment{stored, at}
		}
	}
	return all
}

// server is a program whose service chat is at the moment.
func (m moment) server() api.Server {
	seen := m.seen()
	terms := policy.Default()
	if r := m.state.Rollout; r != nil && r.Policy.Notice > 0 {
		terms = r.Policy
	}
	view := rollout.View{
		State: m.state, Seen: seen, Wish: rollout.Wished(m.state, seen, m.at), Reason: rollout.Step(m.state, seen, m.at).Reason, Policy: terms,
		Differences: map[discovery.InstanceID]rollout.Difference{"b1": {Said: 21, Reported: 60, Since: m.at.Add(-time.Minute)}},
	}
	return api.Server{
		Views: func() (map[discovery.Service]rollout.View, <-chan struct{}) {
			return map[discovery.Service]rollout.View{"chat": view}, nil
		},
		Do: func(_ context.Context, c rollout.Command) (rollout.Answer, error) {
			_, answer, err := rollout.Apply(c, terms, m.state, seen, m.at)
			return answer, err
		},
		Plan: func(_ context.Context, _ discovery.Service, c discovery.Colour, o policy.Overrides) (rollout.Plan, error) {
			return rollout.MakePlan(m.state, seen, c, o.Over(terms), m.at)
		},
		Proxies: func() []api.Proxy { return proxies(m.at) },
		Reread:  func() int { return 16 },
		Ready:   func() error { return nil },
		Metrics: http.NotFoundHandler(),
		Version: "v1",
	}
}

// seen is a world that fits the state: every member answers and holds a little
// more than its order says, and one registration is of no use.
func (m moment) seen() observed.Seen {
	s := observed.Seen{
		Fleet:     discovery.Fleet{LeftOut: []discovery.LeftOut{{ID: "b0", Reason: "it has no colour"}}},
		Instances: map[discovery.InstanceID]observed.Sighting{}, Watching: m.at.Add(-time.Hour),
		Loads: map[observed.Place]observed.Load{}, Gates: map[string]observed.Reading{}, Hooks: map[discovery.InstanceID]observed.HookRun{},
		Witnesses: map[discovery.Colour]observed.Witness{
			discovery.Blue:  {Active: 60, Reported: 60, At: m.at, ConnectP99: 3 * time.Millisecond},
			discovery.Green: {Active: 5, Missing: []string{"edge-9"}},
		},
	}
	for _, node := range m.state.Proxies {
		s.Proxies = append(s.Proxies, observed.Proxy{Node: node, Routes: true, Connected: true, Confirmed: true})
	}
	s.Proxies = append(s.Proxies, observed.Proxy{Node: "edge-9", Routes: true, Lost: m.at.Add(-time.Minute), Nack: "sum of weights is 0"})
	if m.state.Retired {
		s.Fleet.Err, s.Fleet.Suspect, s.Unpublished = "consul gives no answer", "all instances of blue left at once", "listener/web would be removed"
	}
	orders := rollout.Wished(m.state, s, m.at).Orders
	for i, key := range slices.Sorted(maps.Keys(m.state.Members)) {
		x := m.state.Members[key]
		if x.Departed.IsZero() {
			s.Fleet.Instances = append(s.Fleet.Instances, discovery.Instance{
				ID: x.ID, Colour: x.Colour, Addr: x.Addr, Health: discovery.Passing, Drain: x.Drain, Capacity: 500, Version: "v" + string(x.ID[1:]),
			})
		}
		s.Loads[observed.Place{Colour: x.Colour, Addr: x.Addr}] = observed.Load{Held: 20 + i, Admissions: observed.Admissions{Accepted: 90, Refused: uint64(i)}, PerSecond: 2, At: m.at.Add(-time.Second)}
		if x.Drain == "" {
			continue
		}
		status := contract.Status{State: contract.Serving, Active: 20 + i, Accepted: max(x.Accepted, x.Process.Accepted) + 90,
			Evicted: x.Evicted + x.Process.Evicted + 30, Returned: new(x.Returned + x.Process.Returned + 50), Ticketed: new(x.Ticketed + x.Process.Ticketed + 50)}
		if x.Process.Boot != "" {
			status.Boot = "boot of " + string(x.ID)
		}
		if r := m.state.Rollout; r != nil && r.Returns != nil {
			status.Returned, status.Ticketed = nil, nil // which is why there is an estimate
		}
		if r := m.state.Rollout; r != nil && r.Policy.Notice > 0 && r.Old(x) {
			status.Can, status.Asked, status.Left, status.Overstayed = []contract.Ability{contract.CanAsk}, 3, 2, 1
			status.Requests, status.Lingering = 2, 1
		}
		if o := orders[key].Drain; o != nil {
			status.State, status.Ceiling, status.Rollout, status.Epoch, status.Step = contract.Draining, o.Ceiling, o.Rollout, o.Epoch, o.Step
		}
		s.Instances[key] = observed.Sighting{Status: status, At: m.at.Add(-time.Second), PerSecond: 1.5}
	}
	if r := m.state.Rollout; r != nil {
		if all := s.Fleet.Instances; len(r.LeftBehind) > 0 {
			s.Fleet.Twins = []discovery.Twins{{Addr: all[0].Addr, IDs: []discovery.InstanceID{all[0].ID, all[1].ID}}}
		}
		for i, g := range r.Policy.Gates[:max(0, len(r.Policy.Gates)-1)] {
			s.Gates[g.Name] = observed.Reading{Open: i > 0, Unanswered: i == 0, Text: "gate " + g.Name + " says so", At: m.at}
		}
		for i, key := range slices.Sorted(maps.Keys(m.state.Members)) {
			if n := m.state.Members[key].Hooked; n > 0 {
				s.Hooks[key] = observed.HookRun{Rollout: r.ID, Attempt: n, Done: true, Err: strings.Repeat("exit status 1", i%2), At: m.at}
			}
		}
	}
	return s
}

func proxies(at time.Time) []api.Proxy {
	return []api.Proxy{
		{Node: "edge-1", Connected: true, Since: at, Address: "10.1.0.1:40000", UserAgent: "envoy 1.39.3",
			Holds:   []api.Holding{{Type: "cluster", Resources: 2}, {Type: "route", Resources: 1}},
			Reports: api.Reporting{Loads: new(at), Counters: new(at)}},
		{Node: "edge-2", Since: at, Address: "10.1.0.2:40000", NackCount: 3,
			Nacks:    []api.Rejection{{Type: "route", Names: []string{"chat"}, Message: "sum of weights is 0", At: at}},
			Withheld: []api.Withheld{{Ref: "listener/web", Why: "it would be removed"}},
			Reports:  api.Reporting{Silent: true, Partial: true, Trouble: "it names no endpoints", Refused: 7, Ignored: []string{"other"}}},
		{Node: "edge-3", Connected: true, Since: at, Address: "10.1.0.3:40000", UserAgent: "envoy 1.39.3", Twins: []string{"edge-3 (2)"},
			Holds: []api.Holding{}, Nacks: []api.Rejection{}, Withheld: []api.Withheld{}},
		{Node: "edge-3 (2)", Connected: true, Since: at, Address: "10.1.0.4:40000", UserAgent: "envoy 1.39.3", Twins: []string{"edge-3"}, Contested: true,
			Holds: []api.Holding{}, Nacks: []api.Rejection{}, Withheld: []api.Withheld{}},
		{Node: "grpc-1", Connected: true, Since: at, Address: "10.1.0.3:40000", UserAgent: "gRPC 1.80", Foreign: true,
			Holds: []api.Holding{}, Nacks: []api.Rejection{}, Withheld: []api.Withheld{}},
	}
}
