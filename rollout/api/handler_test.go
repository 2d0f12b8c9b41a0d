package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds/reports/exchange"
)

// server is a program around the handler that keeps the last command.
func server(did *rollout.Command) Server {
	return Server{
		Views: func() (map[discovery.Service]rollout.View, <-chan struct{}) {
			return map[discovery.Service]rollout.View{"chat": view()}, nil
		},
		Do: func(_ context.Context, c rollout.Command) (rollout.Answer, error) {
			*did = c
			return rollout.Answer{Text: "done", Rollout: "chat-1"}, nil
		},
		Plan: func(_ context.Context, s discovery.Service, c discovery.Colour, o policy.Overrides) (rollout.Plan, error) {
			return rollout.Plan{Service: s, To: c, Policy: o.Over(policy.Default())}, nil
		},
		Proxies: func() []Proxy { return nil },
		Ready:   func() error { return nil },
		Metrics: http.NotFoundHandler(),
	}
}

func call(h http.Handler, method, path, body string, headers ...string) (int, string) {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

func TestCommands(t *testing.T) {
	every := units.Duration(3 * time.Second)
	for path, c := range map[string]struct {
		body string
		want rollout.Command
	}{
		"promote": {`{"target":"green","close":500,"every":"3s","canary":"5%","soak":"2m","grace":"1s","force":true}`, rollout.Promote{}},
		"pause":   {``, rollout.Pause{Service: "chat"}},
		"resume":  {`{}`, rollout.Resume{Service: "chat"}},
		"abort":   {` `, rollout.Abort{Service: "chat"}},
		"pause?":  {`{"message":"a look at the graphs"}`, rollout.Pause{Service: "chat", Message: "a look at the graphs"}},
		"pace?":   {`{"close":500,"every":"3s","message":"slower"}`, rollout.SetPace{Service: "chat", Funnel: units.Funnel{Close: 500, Every: every}, Message: "slower"}},
		"pace":    {`{"close":500,"every":"3s"}`, rollout.SetPace{Service: "chat", Funnel: units.Funnel{Close: 500, Every: every}}},
	} {
		var did rollout.Command
		code, text := call(server(&did).Handler(), "POST", "/v1/services/chat/"+path, c.body)
		if code != 200 || !strings.Contains(text, `"rollout":"chat-1"`) {
			t.Errorf("%s: %d %s", path, code, text)
		}
		p, promote := did.(rollout.Promote)
		switch {
		case !promote && did != c.want:
			t.Errorf("%s did %+v, want %+v", path, did, c.want)
		case promote:
			o := p.Overrides
			if p.Service != "chat" || p.Target != discovery.Green || !p.Force || *o.Close != 500 || *o.Every != every || *o.Canary != 500 || o.Soak.D() != 2*time.Minute || o.Grace.D() != time.Second {
				t.Errorf("promote did %+v", p)
			}
		}
	}
}

func TestBadRequests(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		code               int
		text               string
	}{
		{"POST", "promote", ``, 400, "the body is empty"},
		{"POST", "promote", `{"target":"purple"}`, 400, `\"purple\" is no colour`},
		{"POST", "promote", `{"target":"green","closed":1}`, 400, "closed"},
		{"POST", "promote", `{"target":"green"}{}`, 400, "something follows"},
		{"POST", "promote", `{"target":"green","every":3}`, 400, "every"},
		{"POST", "promote", `{"target":"` + strings.Repeat("x", 70<<10) + `"}`, 400, "too large"},
		{"POST", "pause", `{"why":"x"}`, 400, "why"},
		{"POST", "pace", `{"close":0,"every":"3s"}`, 400, "at least 1"},
		{"GET", "plan", "", 400, "target is missing"},
		{"GET", "plan?target=green&close=x", "", 400, "close"},
		{"GET", "plan?target=green&speed=1", "", 400, "speed"},
		{"GET", "plan?target=green&window=x", "", 400, "window"},
		{"GET", "plan?target=green&stagger=some", "", 400, "no number of instances"},
		{"GET", "plan?target=green&stagger_soak=2", "", 400, "stagger_soak"},
		{"GET", "plan?target=green&deadline=soon", "", 400, "deadline"},
		{"POST", "promote", `{"target":"green","window":"5"}`, 400, "window"},
		{"POST", "promote", `{"target":"green","stagger":1}`, 400, "stagger"},
		{"POST", "promote", `{"target":"green","deadline":"soon"}`, 400, "no duration"},
		{"GET", "plan?target=green&target=blue", "", 400, "target is given 2 times"},
		{"DELETE", "promote", "", 405, ""},
		{"GET", "nothing", "", 404, ""},
	} {
		var did rollout.Command
		code, text := call(server(&did).Handler(), c.method, "/v1/services/chat/"+c.path, c.body)
		if code != c.code || !strings.Contains(text, c.text) || did != nil {
			t.Errorf("%s %s %.40s: %d %s, did %v; want %d with %q", c.method, c.path, c.body, code, text, did, c.code, c.text)
		}
	}
}

// What a client asks for is what promote and plan are told, in the body and in the
// query.
func TestOverrides(t *testing.T) {
	var did rollout.Command
	var planned policy.Overrides
	s := server(&did)
	s.Plan = func(_ context.Context, _ discovery.Service, _ discovery.Colour, o policy.Overrides) (rollout.Plan, error) {
		planned = o
		return rollout.Plan{}, nil
	}
	ts := httptest.NewServer(s.Handler())
	defer ts.Close()
	client, err := NewClient(ts.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	d := func(d time.Duration) *units.Duration { return new(units.Duration(d)) }
	for name, o := range map[string]policy.Overrides{
		"none": {},
		"all": {Close: new(500), Every: d(3 * time.Second), Grace: d(time.Second), Canary: new(units.Share(500)), Soak: d(time.Minute),
			Window: new(units.Window(3000)), Stagger: new(units.Portion{Number: 2}), StaggerSoak: d(2 * time.Minute), Deadline: d(time.Hour)},
		"share":  {Stagger: new(units.Portion{Share: 2500})},
		"to off": {Window: new(units.NoWindow), Stagger: new(units.Portion{}), StaggerSoak: d(0), Deadline: d(0)},
	} {
		if _, err := client.Plan(t.Context(), "chat", Promotion{Target: "green", Overrides: o}); err != nil || !reflect.DeepEqual(planned, o) {
			t.Errorf("%s: plan got %+v (%v), want %+v", name, planned, err, o)
		}
		if _, err := client.Promote(t.Context(), "chat", Promotion{Target: "green", Overrides: o}); err != nil || !reflect.DeepEqual(did.(rollout.Promote).Overrides, o) {
			t.Errorf("%s: promote got %+v (%v), want %+v", name, did, err, o)
		}
	}
}

func TestRefusals(t *testing.T) {
	for code, want := range map[rollout.Code]int{
		rollout.UnknownService: 404, rollout.BadRequest: 400, rollout.NotReady: 503, rollout.NotStored: 503,
		rollout.InProgress: 409, rollout.NoRollout: 409, rollout.NoTarget: 409, rollout.Infeasible: 409,
	} {
		s := server(new(rollout.Command))
		s.Do = func(context.Context, rollout.Command) (rollout.Answer, error) {
			return rollout.Answer{}, &rollout.Refusal{Code: code, Text: "because"}
		}
		got, text := call(s.Handler(), "POST", "/v1/services/chat/pause", "")
		if got != want || text != `{"error":{"code":"`+string(code)+`","text":"because"}}`+"\n" {
			t.Errorf("%s: %d %s, want %d", code, got, text, want)
		}
	}
	if code, text := call(server(nil).Handler(), "GET", "/v1/services/nope", ""); code != 404 || !strings.Contains(text, "there is chat") {
		t.Errorf("unknown service: %d %s", code, text)
	}
}

func TestToken(t *testing.T) {
	s := server(new(rollout.Command))
	s.Token = "secret"
	h := s.Handler()
	for _, path := range []string{"/v1/status", "/v1/version", "/v1/watch", "/metrics", "/v1/services/chat"} {
		for _, header := range []string{"", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "secret"} {
			code, text := call(h, "GET", path, "", "Authorization", header)
			if code != 401 || !strings.Contains(text, `"unauthorized"`) {
				t.Errorf("%s with %q: %d %s", path, header, code, text)
			}
		}
	}
	for _, header := range []string{"Bearer secret", "bearer secret"} {
		if code, _ := call(h, "GET", "/v1/status", "", "Authorization", header); code != 200 {
			t.Errorf("with %q: %d", header, code)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, _ := call(h, "GET", path, ""); code != 200 {
			t.Errorf("%s without a token: %d", path, code)
		}
	}
}

func TestReady(t *testing.T) {
	s := server(new(rollout.Command))
	s.Views = func() (map[discovery.Service]rollout.View, <-chan struct{}) {
		return map[discovery.Service]rollout.View{"chat": view(), "pay": {Seen: observed.Seen{Fleet: discovery.Fleet{Unread: "it answered 403"}}}}, nil
	}
	if code, text := call(s.Handler(), "GET", "/readyz", ""); code != 200 || text != "ready\nservice pay has not been read from discovery: it answered 403\n" {
		t.Errorf("a service that was not read: %d %s", code, text)
	}
	s.Ready = func() error { return errors.New("chat is not read from Consul yet") }
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/v1/status": 503, "/v1/watch": 503, "/v1/services/chat": 503, "/v1/version": 200, "/v1/proxies": 200} {
		code, text := call(s.Handler(), "GET", path, "")
		if code != want || want == 503 && !strings.Contains(text, "chat is not read") {
			t.Errorf("%s: %d %s, want %d", path, code, text, want)
		}
	}
}

// A page that the operator's browser shows must not be able to promote.
func TestCrossOrigin(t *testing.T) {
	var did rollout.Command
	code, _ := call(server(&did).Handler(), "POST", "/v1/services/chat/abort", "", "Sec-Fetch-Site", "cross-site")
	if code != 403 || did != nil {
		t.Errorf("a cross-site abort: %d, did %v", code, did)
	}
}

// What replicas exchange is read by replicas of other versions: not a byte of it changes.
func TestReports(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	s := server(new(rollout.Command))
	s.Reports = func() exchange.Reports {
		return exchange.Reports{Now: at.Add(time.Second), Nodes: []exchange.Node{
			{Node: "edge-1", Loads: at, Clusters: map[string]exchange.Cluster{"chat-blue": {
				Endpoints: map[netip.AddrPort]exchange.Endpoint{netip.MustParseAddrPort("10.0.0.1:80"): {Held: 1, Issued: 2, Errors: 3, PerSecond: 4.5}},
				Requests:  5, Pending: 6, Connections: 7, Overflow: 8, Connects: 9, Connect: time.Millisecond,
			}}},
			{Node: "edge-2", Counters: at, Clusters: map[string]exchange.Cluster{"chat-blue": {}}},
		}}
	}
	const want = `{"now":"2026-01-02T03:04:06.000000006Z","nodes":[` +
		`{"node":"edge-1","loads":"2026-01-02T03:04:05.000000006Z","clusters":{"chat-blue":{` +
		`"endpoints":{"10.0.0.1:80":{"held":1,"issued":2,"errors":3,"per_second":4.5}},` +
		`"requests":5,"pending":6,"connections":7,"overflow":8,"connects":9,"connect":1000000}}},` +
		`{"node":"edge-2","counters":"2026-01-02T03:04:05.000000006Z","clusters":{"chat-blue":{` +
		`"requests":0,"pending":0,"connections":0,"overflow":0,"connects":0,"connect":0}}}]}` + "\n"
	if code, got := call(s.Handler(), "GET", "/v1/reports", ""); code != 200 || got != want {
		t.Errorf("%d\n%s want\n%s", code, got, want)
	}
	ts := httptest.NewServer(s.Handler())
	defer ts.Close()
	client, err := NewClient(ts.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.Reports(t.Context()); err != nil || !reflect.DeepEqual(got, s.Reports()) {
		t.Errorf("the client reads %+v, %v", got, err)
	}
}

func TestNoServer(t *testing.T) {
	ts := httptest.NewServer(http.NotFoundHandler())
	client, err := NewClient(ts.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no rolloutd of this version") || errors.Is(err, ErrNoServer) {
		t.Errorf("another program at the address: %v", err)
	}
	ts.Close()
	if _, err := client.Status(t.Context()); !errors.Is(err, ErrNoServer) {
		t.Errorf("nobody at the address: %v", err)
	}
	for _, bad := range []string{"", "127.0.0.1:18001", "ftp://x", "http://"} {
		if _, err := NewClient(bad, ""); err == nil {
			t.Errorf("NewClient(%q) gives no error", bad)
		}
	}
}
