package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

func TestConform(t *testing.T) {
	gate := drain.New(drain.Options{Token: "secret"})
	good := httptest.NewServer(gate.Endpoint())
	defer good.Close()
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			return
		}
		gate.Endpoint().ServeHTTP(w, r)
	}))
	defer bad.Close()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SLUICE_TOKEN_FILE", "testdata/token") // the API's, which is nobody else's business

	for _, tc := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{good.URL, "--token", "secret"}, 0, "33 rules: 16 passed, 0 failed, 17 not checked\n", ""},
		{[]string{good.URL, "--token-file", file}, 0, "pass         guard            with a token,", ""},
		{[]string{good.URL, "--token-file", file}, 0, "not checked  pace             no address to connect to was given\n", ""},
		{[]string{bad.URL, "--token", "secret"}, 1, "FAIL         method           POST ", bad.URL + " breaks 1 rule of the drain contract: method\n"},
		{[]string{bad.URL, "--token", "secret"}, 1, "\n               to mend it:    answer 405 to every method but GET, PUT and DELETE\n", "breaks 1 rule"},
		{[]string{good.URL}, 1, "", "rolloutctl: conform " + good.URL + ": it demands a token; show it with --token or --token-file\n"},
		{[]string{good.URL, "--token", "another"}, 1, "", "rolloutctl: conform " + good.URL + ": it refuses this token\n"},
		{[]string{good.URL, "--token-file", "testdata/empty"}, 1, "", "rolloutctl: --token-file: testdata/empty is empty; it must hold the token\n"},
		{[]string{good.URL, "--token-file", "testdata/words"}, 1, "", "rolloutctl: --token-file: testdata/words holds more than one word of plain characters; it must hold the token alone\n"},
		{[]string{good.URL, "--token", "two words"}, 2, "", "--token holds more than one word of plain characters; give the token alone"},
		{[]string{"http://127.0.0.1:1"}, 1, "", "connection refused"},
		{[]string{"127.0.0.1:1"}, 2, "", "no address of a drain endpoint"},
		{[]string{good.URL, "--connect", "chat:1"}, 2, "", "no address to connect to"},
		{[]string{good.URL, "--connections", "3"}, 2, "", "at least 8"},
		{nil, 2, "", "the address of the drain endpoint"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"conform"}, tc.args...), &stdout, &stderr)
		if code != tc.code || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) || (stderr.Len() > 0) != (tc.stderr != "") {
			t.Errorf("%v: exit %d, want %d\n%s%s", tc.args, code, tc.code, &stdout, &stderr)
		}
	}

	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"conform", bad.URL, "--token", "secret", "-o", "json"}, &stdout, &stderr)
	var out conformity
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil || out.Passed != 15 || out.Failed != 1 || len(out.Rules) != 33 {
		t.Errorf("%v\n%s", err, &stdout)
	}
}
