// Package strictjson reads JSON from those who should hear of a mistake: one value,
// without unknown keys, and nothing behind it.
package strictjson

import (
	"encoding/json"
	"errors"
	"io"
)

// ErrMore is that something follows the value.
var ErrMore = errors.New("something follows the JSON object")

// Decode reads exactly one value into v. It is io.EOF when there is none; an error
// behind the value is ErrMore, too, in its own words.
func Decode(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	switch _, err := d.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return more{err}
	}
	return ErrMore
}

type more struct{ error }

func (m more) Unwrap() []error { return []error{ErrMore, m.error} }
