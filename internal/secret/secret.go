// Package secret reads tokens: one rule for programs that show one and that demand one.
package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// most bounds a file that holds a token.
const most = 16 << 10 // bytes

// File reads the token that a file holds, without the space around it. The error
// is one sentence. A file that a process is still writing, such as a pipe, is
// waited for.
func File(path string) (string, error) {
	token, err := read(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w; it must hold the token", err)
	case token == "":
		return "", fmt.Errorf("%s is empty; it must hold the token", path)
	case !Word(token):
		return "", fmt.Errorf("%s holds more than one word of plain characters; it must hold the token alone", path)
	}
	return token, nil
}

func read(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	err = errors.Join(err, f.Close())
	if err == nil && len(data) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return strings.TrimSpace(string(data)), err
}

// Word reports whether a token can stand in a header: it is one word of
// printable ASCII.
func Word(token string) bool {
	return token != "" && !strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' })
}
