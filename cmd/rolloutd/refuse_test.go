package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/api"
)

// What cannot be used stops the start: named, with the way out, and not touched.
func TestStateThatCannotBeUsed(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"corrupt": {`{"format":1,"service":"chat","live":"bl`, "restore it from a backup, or move it away to start its service anew on the configured live colour"},
		"newer":   {`{"format":2,"service":"chat","live":"blue","lanes":[]}`, "state format 2 is newer than this program's 1; run the newer rolloutd"},
		"another": {`{"format":1,"service":"feed","live":"blue","epoch":0,"members":{}}`, "it is the state of service feed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t, 0)
			path := filepath.Join(p.dir, "state", "chat.json")
			if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.data), 0o640); err != nil {
				t.Fatal(err)
			}
			p.fails(path, c.want)
			if got := p.read("state/chat.json"); got != c.data {
				t.Errorf("it was overwritten:\n%s", got)
			}
		})
	}
}

func TestSecondProgramOnTheSameState(t *testing.T) {
	p := newProgram(t, 0)
	p.launch()
	second := newProgram(t, 0)
	second.edit("state: {file: state}", fmt.Sprintf("state: {file: %s}", filepath.Join(p.dir, "state")))
	second.fails(fmt.Sprintf("state folder %s is held by another rolloutd (pid %d); stop it, or name another folder", filepath.Join(p.dir, "state"), os.Getpid()))
	p.status("chat") // the first one goes on
}

// Everything that is wrong is said at once, with file and line.
func TestBadConfiguration(t *testing.T) {
	p := newProgram(t, 0)
	p.edit("funnel: 3/100ms", "funnel: 0/100ms, grace: soon")
	p.edit("name: web", "nmae: web")
	p.edit("xds: {listen", "xsd: {listen")
	path := filepath.Join(p.dir, "sluice.yaml")
	p.fails(path+":3: xsd", path+":6: listeners[0].nmae", path+":8: services[0].policy.funnel", path+":8: services[0].policy.grace")
	if _, err := os.Stat(filepath.Join(p.dir, "state")); err == nil {
		t.Error("it made the state folder")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.fails(path)
}

func TestToken(t *testing.T) {
	p := newProgram(t, 0)
	local := strings.TrimPrefix(p.base, "http://")
	open := "0.0.0.0" + local[strings.LastIndexByte(local, ':'):]
	p.edit("api: {listen: "+local+"}", "api: {listen: "+open+"}")
	p.fails("api.token_file: is missing; " + open + " can be reached from other machines, so requests must show a token")

	p.write("api.token", "secret\n")
	p.edit("api: {listen: "+open+"}", "api: {listen: "+local+", token_file: api.token}")
	p.launch()
	for _, path := range []string{"/v1/status", "/v1/watch", "/v1/proxies", "/metrics"} {
		for _, token := range []string{"", "wrong"} {
			if code, body := p.get(path, token); code != http.StatusUnauthorized {
				t.Errorf("%s with token %q: %d %s", path, token, code, body)
			}
		}
	}
	if _, err := p.api.Promote(t.Context(), "chat", api.Promotion{Target: "green"}); refusal(err) != api.Unauthorized {
		t.Errorf("promote without a token: %v", err)
	}
	for _, path := range []string{"/v1/status", "/metrics", "/healthz", "/readyz"} {
		token := "secret"
		if strings.HasSuffix(path, "z") {
			token = ""
		}
		if code, body := p.get(path, token); code != http.StatusOK {
			t.Errorf("%s with token %q: %d %s", path, token, code, body)
		}
	}
}

// One sentence that says who wanted the port.
func TestPortsAreTaken(t *testing.T) {
	p := newProgram(t, 0)
	for addr, who := range map[string]string{
		p.xds.String():                        "listen for Envoys (xds.listen)",
		strings.TrimPrefix(p.base, "http://"): "listen for operators (api.listen)",
	} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		p.fails("rolloutd: "+who+": ", addr, "address already in use")
		_ = l.Close()
	}
}

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-nothing"}, 2, "flag provided but not defined: -nothing"},
		{[]string{"serve"}, 2, `rolloutd: "serve" is not understood; rolloutd takes only flags, see rolloutd -help`},
		{[]string{"-help"}, 0, "rolloutctl validate checks it, SIGHUP rereads it"},
		{[]string{"-version"}, 0, "rolloutd devel"},
		{[]string{"-log-json", "-config", "/nonexistent/sluice.yaml"}, 1, "/nonexistent/sluice.yaml"},
	} {
		said := &saying{}
		if code := run(t.Context(), c.args, nil, said); code != c.code || !strings.Contains(said.String(), c.want) {
			t.Errorf("rolloutd %v: %d, %s; want %d and %q", c.args, code, said, c.code, c.want)
		}
	}
}
