package discovery

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestLogChangeWritesOneLinePerChange(t *testing.T) {
	bad := Fleet{
		LeftOut: []LeftOut{{"a", "it has no colour"}, {"b", "its port is 0"}}, Notes: []Note{{"c", "mend it"}},
		Suspect: "vanished", Err: "unreachable",
	}
	for name, c := range map[string]struct {
		before, after Fleet
		want          []string
	}{
		"nothing new": {bad, bad, nil},
		"all bad":     {Fleet{}, bad, []string{"its port is 0", "mend it", "vanished", "unreachable"}},
		"all good":    {bad, Fleet{}, []string{"no instance is left out", "need no mending", "no absence", "read again"}},
	} {
		var out bytes.Buffer
		LogChange(slog.New(slog.NewTextHandler(&out, nil)), "chat", c.before, c.after)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if out.Len() == 0 {
			lines = nil
		}
		if len(lines) != len(c.want) {
			t.Errorf("%s: %q", name, lines)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(lines[i], want) || !strings.Contains(lines[i], "service=chat") {
				t.Errorf("%s: %q, want %q", name, lines[i], want)
			}
		}
	}
}
