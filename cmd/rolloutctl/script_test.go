package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

func TestMain(m *testing.M) {
	time.Local = time.FixedZone("somewhere", 5*60*60) // nothing is printed in it
	_ = os.Setenv("LC_ALL", "C.UTF-8")
	os.Exit(m.Run())
}

// TestScripts runs testdata/*.txtar. The comment sets the scene, one word and its
// value a line:
//
//	world: which one worlds() says
//	answer: ID TEXT      what a command is answered
//	refuse: CODE TEXT    … or how it is refused
//	ready: TEXT          what is not read yet
//	token: TOKEN         what the API demands
//	down: yes            nobody is there
//	version: VERSION     … rolloutd's; devel without
//	envoys: none|well    … which proxies there are; two with troubles without
//	then: world world …  what follows after a command, one world per look
//
// Each file is a command line, its content the exit code, what the server was
// told and what was printed.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			script, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range script.Files {
				got := play(t, scene(t, string(script.Comment)), strings.Fields(f.Name))
				if !bytes.Equal(got, f.Data) && !*update {
					t.Errorf("%s\n%s\nwant\n%s", f.Name, got, f.Data)
				}
				script.Files[i].Data = got
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(script), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func scene(t *testing.T, comment string) map[string]string {
	set := map[string]string{}
	for line := range strings.Lines(comment) {
		if word, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "#") {
			set[word] = value
		} else if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			t.Fatalf("the scene has a line %q", line)
		}
	}
	return set
}

// actor is the program around a real handler, following a script.
type actor struct {
	mu   sync.Mutex
	set  map[string]string
	now  string
	then []string
	did  []string
}

// views says the next world at each look, once a command was carried out.
func (a *actor) views() (map[discovery.Service]rollout.View, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.did) > 0 && len(a.then) > 0 {
		a.now, a.then = a.then[0], a.then[1:]
	}
	newer := make(chan struct{})
	if len(a.then) > 0 {
		close(newer)
	}
	return worlds(a.now), newer
}

func (a *actor) do(_ context.Context, c rollout.Command) (rollout.Answer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	text, err := json.Marshal(c)
	a.did = append(a.did, fmt.Sprintf("did %T %s", c, text))
	if code, why, refused := strings.Cut(a.set["refuse"], " "); refused {
		return rollout.Answer{}, &rollout.Refusal{Code: rollout.Code(code), Text: why}
	}
	id, answer, _ := strings.Cut(a.set["answer"], " ")
	return rollout.Answer{Text: answer, Rollout: strings.Trim(id, "-")}, err
}

func (a *actor) proxies() []api.Proxy {
	switch a.set["envoys"] {
	case "none":
		return nil
	case "well":
		all := edges()[:1]
		all[0].Reports = api.Reporting{Loads: new(then), Counters: new(then)}
		return all
	}
	return edges()
}

func (a *actor) handler() http.Handler {
	return api.Server{
		Views: a.views, Do: a.do, Proxies: a.proxies, Metrics: http.NotFoundHandler(), Version: cmp.Or(a.set["version"], "devel"), Token: a.set["token"],
		Plan: func(_ context.Context, s discovery.Service, to discovery.Colour, o policy.Overrides) (rollout.Plan, error) {
			p := rollout.Plan{Service: s, From: to.Other(), To: to, Policy: o.Over(policy.Default()), Connections: 1000, Steps: 10,
				Takes: units.Duration(90 * time.Second), PeakPerSecond: 33.333}
			if !p.Policy.Stagger.Instances.IsZero() {
				p.Batches = []rollout.Batch{
					{Instances: []discovery.InstanceID{"chat-b1"}, Connections: 400, Takes: units.Duration(4 * time.Second)},
					{Instances: []discovery.InstanceID{"chat-b2", "chat-b3", "chat-b4", "chat-b5"}, Connections: 600, Takes: units.Duration(6 * time.Second)},
				}
				p.Policy.Gates = []policy.Gate{{Name: "errors"}, {Name: "freeze", At: []policy.Moment{policy.AtStart, policy.AtSoak}}}
				p = p.Answered(map[string]observed.Reading{
					"errors": {Open: true, Text: "gate errors is open: 0.002 is below 0.01"}, "freeze": {Text: "gate freeze is closed: false exits with 1"},
				})
			}
			if to == discovery.Blue {
				p.Room, p.Notes, p.Problems = new(200), []string{"edge-2 is away"}, []string{"blue has room for 200 of 1000"}
			}
			return p, nil
		},
		Ready: func() error {
			if why := a.set["ready"]; why != "" {
				return errors.New(why)
			}
			return nil
		},
	}.Handler()
}

// play runs one command line against the scene and returns all that came of it.
func play(t *testing.T, set map[string]string, args []string) []byte {
	a := &actor{set: set, now: set["world"], then: strings.Fields(set["then"])}
	ts := httptest.NewServer(a.handler())
	defer ts.Close()
	if set["down"] != "" {
		ts.Close()
	}
	t.Setenv("SLUICE_SERVER", ts.URL)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, &stdout, &stderr)
	out := fmt.Sprintf("exit %d\n", code)
	for _, d := range a.did {
		out += d + "\n"
	}
	if stdout.Len() > 0 {
		out += "stdout\n" + stdout.String()
	}
	if stderr.Len() > 0 {
		out += "stderr\n" + stderr.String()
	}
	for scrub, with := range map[*regexp.Regexp]string{
		regexp.MustCompile(regexp.QuoteMeta(strings.TrimPrefix(ts.URL, "http://"))): "HOST",
		regexp.MustCompile(`\(in [0-9a-z]+\)`):                                      "(in T)",
		regexp.MustCompile(`"at": "20[0-9T:.Z-]+"(,\n *"services")`):                `"at": "NOW"$1`,
		regexp.MustCompile(`(?m)^20[0-9T:-]+Z `):                                    "NOW ",
		regexp.MustCompile(`rolloutctl (\S+) \(go[0-9.]+\)`):                        "rolloutctl $1 (GO)",
		regexp.MustCompile(` +\n`):                                                  "\n",
	} {
		out = scrub.ReplaceAllString(out, with)
	}
	return []byte(out)
}
