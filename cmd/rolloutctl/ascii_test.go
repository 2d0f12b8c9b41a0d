package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// In a locale without UTF-8 only ASCII is printed, but JSON stays as it is.
func TestASCII(t *testing.T) {
	for locale, plain := range map[string]bool{"C": true, "POSIX": true, "de_DE.ISO-8859-1": true, "C.UTF-8": false, "en_US.utf8": false, "": false} {
		t.Setenv("LC_ALL", locale)
		t.Setenv("LC_CTYPE", "")
		t.Setenv("LANG", "")
		for _, args := range [][]string{{"status"}, {"plan", "green"}, {"proxies"}, {"instances"}} {
			out := string(play(t, map[string]string{"world": "troubled"}, args))
			if ascii := strings.IndexFunc(out, func(r rune) bool { return r > '~' }) < 0; ascii != plain {
				t.Errorf("LC_ALL=%q %v: only ASCII is %v\n%s", locale, args, ascii, out)
			}
		}
	}
	t.Setenv("LC_ALL", "C")
	set := map[string]string{"world": "steady", "answer": "chat-1 latency – “search”"}
	if out := string(play(t, set, []string{"pause", "-o", "json"})); !strings.Contains(out, "latency – “search”") {
		t.Errorf("JSON is changed:\n%s", out)
	}
	if out := string(play(t, set, []string{"pause"})); !strings.Contains(out, `latency - "search"`) {
		t.Errorf("says\n%s", out)
	}
}

// Each verb has a page, and the same release writes the same bytes.
func TestManualPages(t *testing.T) {
	pages := func() map[string]string {
		dir, all := t.TempDir(), map[string]string{}
		if out := string(play(t, nil, []string{"man", dir})); !strings.HasPrefix(out, "exit 0\n") {
			t.Fatal(out)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.Base(file)] = string(text)
		}
		return all
	}
	first, second := pages(), pages()
	if text := first["rolloutctl-promote.1"]; !strings.Contains(text, "at the pace of its policy") || !strings.Contains(text, "timeout") {
		t.Errorf("the page of promote is\n%s", text)
	}
	for _, verb := range []string{"rolloutctl", "rolloutctl-check", "rolloutctl-proxies-forget", "rolloutctl-validate"} {
		if first[verb+".1"] == "" || first[verb+".1"] != second[verb+".1"] {
			t.Errorf("%s has no page, or another each time", verb)
		}
	}
	if out := string(play(t, nil, []string{"man", "/nowhere/at/all"})); !strings.HasPrefix(out, "exit 1\n") {
		t.Error(out)
	}
}
