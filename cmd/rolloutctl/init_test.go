package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/cmd/internal/config"
)

// What init prints is valid as it is, and with every line that it only proposes.
func TestInit(t *testing.T) {
	for _, args := range [][]string{
		{"init", "--consul", "127.0.0.1:8500"}, {"init", "--consul", "https://consul.example.com", "--service", "mail"}, {"init", "--file", "instances of today.yaml", "--service", "true"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != exitDone {
			t.Fatalf("%v: exit %d\n%s", args, code, &stderr)
		}
		dir := t.TempDir()
		for _, file := range []string{"consul.token", "drain.token"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte("secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		proposed := stdout.String()
		for _, key := range []string{"token_file", "tags", "drain", "domains", "canary", "soak", "grace", "capacity", "deadline"} {
			proposed = strings.ReplaceAll(proposed, "# "+key+": ", key+": ")
		}
		for _, text := range []string{stdout.String(), proposed} {
			path := filepath.Join(dir, "sluice.yaml")
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			loaded, err := config.Load(path)
			if err != nil {
				t.Errorf("%v: %v of\n%s", args, err, text)
				continue
			}
			if want := args[len(args)-1]; len(args) > 3 && string(loaded.Services[0].Name) != want {
				t.Errorf("%v configures %s", args, loaded.Services[0].Name)
			}
			if text == proposed && (loaded.Services[0].Policy.Canary == 0 || loaded.Drain.Token != "secret") {
				t.Errorf("%v: what is proposed was not tried:\n%s", args, text)
			}
		}
	}
	for _, args := range [][]string{{"init"}, {"init", "--consul", "a", "--file", "b"}, {"init", "--file", "a\"b"}, {"init", "--file", ""}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != exitUsage || stdout.Len() > 0 {
			t.Errorf("%q: exit %d\n%s%s", args, code, &stdout, &stderr)
		}
	}
}
