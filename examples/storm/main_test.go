package main

import (
	"io"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
)

func TestRefusesWhatCannotBe(t *testing.T) {
	t.Setenv("ENVOY", "/dev/null") // nothing is started in any case
	for args, want := range map[string]string{
		"now":                 `unexpected argument "now"`,
		"--clients 0":         "at least 1",
		"--close 0":           "at least 1 connection",
		"--close 1000":        "the cap lets go 500 a second, and green lets in 120 with --handshake 20ms",
		"--every 1ms":         "a step lasts",
		"--reconnect never":   "wrong usage",
		"--clients 100000000": "open files",
		"--scenario none":     "there is no such scenario; use all, or some of sick-green,slow-clients",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want one that says %q", args, err, want)
		}
	}
}

func TestProgress(t *testing.T) {
	c := clients.Counts{Total: 8, Colour: map[string]int{"blue": 3, "green": 5}}
	if got, want := shown(c, 10), strings.Repeat("█", 15)+strings.Repeat("░", 15)+"  blue 3, green 5, away 2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var out strings.Builder
	p := newProgress(&out, funnel)
	p.say("one")
	p.say("one")
	p.say("two")
	p.end()
	if lines := strings.Count(out.String(), "\n"); lines != 2 || strings.Contains(out.String(), "\r") {
		t.Errorf("not a terminal, but %q", out.String())
	}
}
