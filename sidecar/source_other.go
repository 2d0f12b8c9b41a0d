//go:build !unix

package sidecar

import (
	"errors"
	"io"
	"iter"
)

// chunks yields what c receives, each piece valid until the next, and ends at its
// FIN; an error is the last that it yields.
func chunks(c conn) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		b := make([]byte, 4<<10)
		for {
			n, err := c.Read(b)
			switch {
			case n > 0 && !yield(b[:n], nil), errors.Is(err, io.EOF):
				return
			case err != nil:
				yield(nil, err)
				return
			}
		}
	}
}
