package outside

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

func TestCommandGates(t *testing.T) {
	t.Setenv("CONSUL_HTTP_TOKEN", "secret")
	t.Setenv("HOME", "/home/here")
	g := newGates(t, Prometheus{})
	for _, c := range []struct{ program, want string }{
		{"exit 0", "open: program answers"},
		{"echo first; echo 'all well'; echo; exit 0", "open: all well"},
		{"echo out; echo 'no such host' >&2; exit 3", "closed: program exits with 3: no such host"},
		{"kill -9 $$", "closed: program ends by signal: killed"},
		{`echo "${CONSUL_HTTP_TOKEN-none} $SLUICE_SERVICE ${PATH:+path} $HOME"`, "open: none chat path /home/here"},
		{"cat; echo no input", "open: no input"},
		{`printf 'a\033[31m\000\377\tb\r\nc\rd\n'`, "open: d"},
		{`printf 'a\033[31m\000\377\tb'`, "open: a [31m ? b"},
		{"yes 0123456789 | head -c 1000000 | tr -d '\\n'; exit 1", "closed: program exits with 1: "},
		{"(sleep 60; echo late) & echo 'left something behind'; exit 1", "closed: program exits with 1: left something behind"},
	} {
		gate := policy.Gate{Name: "smoke", Command: []string{script(t, c.program)}}
		r := ask(t, g, gate)
		if r.Unanswered != strings.Contains(c.want, "signal") {
			t.Errorf("%s: %+v", c.program, r)
		}
		if !strings.HasPrefix(r.Text, "gate smoke is "+c.want) || r.Open != strings.HasPrefix(c.want, "open") || len(r.Text) > 300 {
			t.Errorf("%s:\ngot  %t %q\nwant %q", c.program, r.Open, r.Text, c.want)
		}
	}
	for want, command := range map[string][]string{
		"closed: nowhere does not start: executable file not found in $PATH": {"nowhere"},
		"no such file or directory": {"/nowhere/it"},
		"permission denied":         {"/etc/passwd"},
		"invalid argument":          {"true", "\x00"},
		"open: $HOME `id` *":        {"echo", "$HOME", "`id`", "*"}, // no shell
	} {
		if r := ask(t, g, policy.Gate{Name: "a", Command: command}); !strings.Contains(r.Text, want) {
			t.Errorf("%q: %q, want %q", command, r.Text, want)
		}
	}
}

// A command that hangs is killed with everything that it started.
func TestCommandThatHangs(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	program := script(t, "sleep 600 & echo $! >"+pids+"; echo waiting; wait")
	g := newGates(t, Prometheus{})
	begun := time.Now()
	r := ask(t, g, policy.Gate{Name: "smoke", Command: []string{program}, Timeout: units.Duration(time.Second)})
	if want := "gate smoke is closed: program gives no answer within 1s: waiting"; r.Open || !r.Unanswered || r.Text != want {
		t.Errorf("%+v, want %q", r, want)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	until(t, func() string { return alive(t, pids) })
}

// alive says which process of a file of process ids still runs.
func alive(t *testing.T, pids string) string {
	t.Helper()
	data, err := os.ReadFile(pids)
	if err != nil {
		return err.Error()
	}
	for pid := range strings.FieldsSeq(string(data)) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			return "process " + pid + " still runs"
		}
	}
	return ""
}

func TestURLGates(t *testing.T) {
	var code atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.RawQuery != "token=secret" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(code.Load()))
		_, _ = io.WriteString(w, "two tickets\nare open "+strings.Repeat("x", 10<<20))
	}))
	t.Cleanup(srv.Close)
	g := newGates(t, Prometheus{Address: "http://127.0.0.1:1", Token: "another"})
	gate := policy.Gate{Name: "tickets", URL: srv.URL + "/?token=secret"}
	at := strings.TrimPrefix(srv.URL, "http://")
	for status, want := range map[int32]string{
		200: "open: " + at + " answers", 204: "open: ", 302: "closed: " + at + " answers 302: two tickets are open",
		404: "closed: " + at + " answers 404", 503: "closed: " + at + " answers 503: two tickets are open xxx",
	} {
		code.Store(status)
		if r := ask(t, g, gate); !strings.HasPrefix(r.Text, "gate tickets is "+want) || r.Open != strings.HasPrefix(want, "open") || r.Unanswered || len(r.Text) > 300 {
			t.Errorf("%d: %t %q, want %q", status, r.Open, r.Text, want)
		}
	}
	srv.Close()
	if r := ask(t, g, gate); r.Open || !r.Unanswered || strings.Contains(r.Text, "secret") || !strings.Contains(r.Text, at+" does not answer: dial tcp "+at+": connect: connection refused") {
		t.Errorf("%+v", r)
	}
}

// One asking at a time; what was asked counts from when it began; time is fake.
func TestGatesAreAskedOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(t, Prometheus{})
		var asked atomic.Int32
		g.web.transport.DialContext = slowly(t, 2*time.Second, &asked)
		notices, stop := running(t, g.Run)
		gates := []policy.Gate{{Name: "a", URL: "http://a/"}, {Name: "b", URL: "http://b/", Timeout: units.Duration(time.Second)}}
		start := time.Now()
		for range 3 {
			g.Ask("chat", gates, policy.AtStep)
			time.Sleep(300 * time.Millisecond)
		}
		if len(g.Readings("chat")) != 0 || asked.Load() != 2 {
			t.Errorf("readings %v after asking %d times", g.Readings("chat"), asked.Load())
		}
		time.Sleep(200 * time.Millisecond) // 1.1 s
		if r := g.Readings("chat"); len(r) != 1 || r["b"].Open || r["b"].Text != "gate b is closed: b gives no answer within 1s" || !r["b"].At.Equal(start) || len(notices) != 1 {
			t.Errorf("%v, %d notices", r, len(notices))
		}
		time.Sleep(time.Second) // 2.1 s
		if r := g.Readings("chat"); !r["a"].Open || !r["a"].At.Equal(start) || len(notices) != 2 {
			t.Errorf("%v, %d notices", r, len(notices))
		}
		g.Ask("chat", gates, policy.AtStep)
		synctest.Wait()
		if r := g.Readings("chat"); !r["a"].Open || !r["a"].At.Equal(start) || asked.Load() != 4 {
			t.Errorf("while it is asked again the reading stays: %v, asked %d times", r, asked.Load())
		}
		time.Sleep(3 * time.Second)
		if r := g.Readings("chat"); !r["a"].At.Equal(start.Add(2100 * time.Millisecond)) {
			t.Errorf("the second asking began at %s", r["a"].At.Sub(start))
		}
		stop()
	})
}

// Only the gates of the moment are asked; the readings of the others stay.
func TestGatesOfAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(t, Prometheus{})
		var asked atomic.Int32
		g.web.transport.DialContext = slowly(t, time.Second, &asked)
		running(t, g.Run)
		gates := []policy.Gate{{Name: "a", URL: "http://a/", At: []policy.Moment{policy.AtStart}}, {Name: "b", URL: "http://b/"}}
		start := time.Now()
		for _, at := range policy.Moments {
			g.Ask("chat", gates, at)
			time.Sleep(2 * time.Second)
		}
		if r := g.Readings("chat"); asked.Load() != 4 || !r["a"].At.Equal(start) || !r["b"].At.Equal(start.Add(4*time.Second)) {
			t.Errorf("%v after asking %d times", r, asked.Load())
		}
	})
}

// Read asks every gate at the same time and shows its answers to nobody else.
func TestReadGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(t, Prometheus{})
		var asked atomic.Int32
		g.web.transport.DialContext = slowly(t, 2*time.Second, &asked)
		begun := time.Now()
		r := g.Read(t.Context(), "chat", []policy.Gate{
			{Name: "a", URL: "http://a/", At: []policy.Moment{policy.AtSoak}}, {Name: "b", URL: "http://b/", Timeout: units.Duration(time.Second)},
		})
		if len(r) != 2 || !r["a"].Open || r["b"].Text != "gate b is closed: b gives no answer within 1s" || time.Since(begun) != 2*time.Second {
			t.Errorf("%v after %s", r, time.Since(begun))
		}
		if r := g.Readings("chat"); len(r) != 0 {
			t.Errorf("%v", r)
		}
	})
}

// A gate that leaves the policy, or becomes another, takes its reading along,
// also the one that is on its way.
func TestGatesThatLeaveAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(t, Prometheus{})
		var asked atomic.Int32
		g.web.transport.DialContext = slowly(t, time.Second, &asked)
		_, stop := running(t, g.Run)
		a, b := policy.Gate{Name: "a", URL: "http://a/"}, policy.Gate{Name: "b", URL: "http://b/"}
		g.Ask("chat", []policy.Gate{a, b}, policy.AtStep)
		g.Ask("feed", []policy.Gate{a}, policy.AtStep)
		time.Sleep(2 * time.Second)
		b.URL = "http://another/"
		g.Ask("chat", []policy.Gate{b}, policy.AtStep)
		if r := g.Readings("chat"); len(r) != 0 {
			t.Errorf("%v", r)
		}
		synctest.Wait()
		b.URL = "http://a-third/"
		g.Ask("chat", []policy.Gate{b}, policy.AtStep) // while the other is asked
		time.Sleep(2 * time.Second)
		if r := g.Readings("chat"); len(r) != 1 || !r["b"].Open || !strings.Contains(r["b"].Text, "a-third") {
			t.Errorf("%v", r)
		}
		if r := g.Readings("feed"); len(r) != 1 || !r["a"].Open {
			t.Errorf("another service's: %v", r)
		}
		g.Ask("chat", nil, policy.AtStep)
		if r := g.Readings("chat"); len(r) != 0 {
			t.Errorf("%v", r)
		}
		stop()
	})
}

// slowly connects to a server in memory that answers 200 after a delay.
func slowly(t *testing.T, delay time.Duration, asked *atomic.Int32) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			in := bufio.NewReader(theirs)
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				asked.Add(1)
				select {
				case <-time.After(delay):
				case <-t.Context().Done():
				}
				if _, err := io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		}()
		return ours, nil
	}
}

// Commands that run are killed when their gate leaves, and when rolloutd stops.
func TestGatesEndWithTheirCommands(t *testing.T) {
	for name, leave := range map[string]func(*Gates, func()){
		"left":    func(g *Gates, _ func()) { g.Ask("chat", nil, policy.AtStep) },
		"stopped": func(_ *Gates, stop func()) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			pids := filepath.Join(t.TempDir(), "pids")
			g := newGates(t, Prometheus{})
			_, stop := running(t, g.Run)
			g.Ask("chat", []policy.Gate{{Name: "a", Command: []string{script(t, "echo $$ >"+pids+"; exec sleep 600")}, Timeout: units.Duration(time.Hour)}}, policy.AtStep)
			until(t, func() string {
				if data, err := os.ReadFile(pids); err != nil || len(data) == 0 {
					return "it never ran"
				}
				return ""
			})
			leave(g, stop)
			until(t, func() string { return alive(t, pids) })
			if r := g.Readings("chat"); name == "left" && len(r) != 0 {
				t.Errorf("%v", r)
			}
		})
	}
}
