// Package nearest finds what was meant by a word that is not known.
package nearest

import (
	"fmt"

	"github.com/agnivade/levenshtein"
)

// Of returns the known word that a third of the given word's letters, and one at
// least, make up for; empty where none is that near or two are equally near.
func Of(word string, known []string) string {
	best, most, twice := "", max(1, (len([]rune(word))+1)/3), false
	for _, k := range known {
		switch d := levenshtein.ComputeDistance(word, k); {
		case k == best || d > most:
		case d == most && best != "":
			twice = true
		default:
			best, most, twice = k, d, false
		}
	}
	if twice {
		return ""
	}
	return best
}

// Ask is the question after a sentence about an unknown word: "; did you mean
// green?", or nothing.
func Ask(word string, known []string) string {
	if k := Of(word, known); k != "" {
		return fmt.Sprintf("; did you mean %s?", k)
	}
	return ""
}
