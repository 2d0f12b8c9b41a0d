package main

import (
	"cmp"
	"io"
	"os"
	"strings"
)

// plainLocale: the environment says that the terminal shows ASCII only. One that says
// nothing is taken for a terminal of today.
func plainLocale() bool {
	said := strings.ToLower(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG")))
	return said != "" && !strings.Contains(said, "utf-8") && !strings.Contains(said, "utf8")
}

// inASCII replaces what such a terminal cannot show, cell by cell, so that columns
// stay where they are.
func inASCII(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '–', '—':
			return '-'
		case '→':
			return '>'
		case '…':
			return '~'
		case '█':
			return '#'
		case '░':
			return '.'
		case '“', '”':
			return '"'
		}
		if r > '~' {
			return '?'
		}
		return r
	}, s)
}

// asciiWriter writes text in ASCII; each Write has to end between two characters.
type asciiWriter struct{ io.Writer }

func (w asciiWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, inASCII(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
