package secret

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFile(t *testing.T) {
	for name, test := range map[string]struct{ text, want, err string }{
		"one word":           {text: "secret", want: "secret"},
		"newline":            {text: "secret\n", want: "secret"},
		"carriage return":    {text: " secret\r\n\r\n", want: "secret"},
		"empty":              {err: "PATH is empty; it must hold the token"},
		"blank":              {text: " \n", err: "PATH is empty; it must hold the token"},
		"two words":          {text: "one two\n", err: "PATH holds more than one word of plain characters; it must hold the token alone"},
		"two lines":          {text: "one\ntwo\n", err: "PATH holds more than one word of plain characters; it must hold the token alone"},
		"not ASCII":          {text: "gehèim", err: "PATH holds more than one word of plain characters; it must hold the token alone"},
		"byte order mark":    {text: "\ufeffsecret", err: "PATH holds more than one word of plain characters; it must hold the token alone"},
		"zero byte":          {text: "a\x00b", err: "PATH holds more than one word of plain characters; it must hold the token alone"},
		"as long as may be":  {text: strings.Repeat("x", most), want: strings.Repeat("x", most)},
		"longer than may be": {text: strings.Repeat("x", most+1), err: "PATH has more than 16384 bytes; it must hold the token"},
	} {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		token, err := File(path)
		if err == nil && test.err != "" || err != nil && err.Error() != strings.ReplaceAll(test.err, "PATH", path) || token != test.want {
			t.Errorf("%s: %.40q, %v; want %.40q, %s", name, token, err, test.want, test.err)
		}
	}
}

func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := File(dir); err == nil || err.Error() != dir+" is not a regular file; it must hold the token" {
		t.Error(err)
	}
	if _, err := File(dir + "/none"); err == nil || err.Error() != "stat "+dir+"/none: no such file or directory; it must hold the token" {
		t.Error(err)
	}
}

// A shell's <(pass show token) is a pipe.
func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error)
	go func() { wrote <- os.WriteFile(path, []byte("secret\n"), 0o600) }()
	token, err := File(path)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if token != "secret" || err != nil {
		t.Errorf("%q, %v", token, err)
	}
}
