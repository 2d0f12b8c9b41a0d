package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong, where it stands and what to do about it.
type Problem struct {
	// File is the configuration's path as it was given.
	File string
	// Line counts from 1; 0 is the file as a whole.
	Line int
	// Key is the path of the key, such as services[0].policy.funnel.close; empty
	// is the file as a whole.
	Key string
	// Text is one sentence.
	Text string
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	return b.String() + ": " + p.Text
}

// Problems is every problem of a file, by line. As an error it prints one per
// line.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
