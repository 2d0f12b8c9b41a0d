package strictjson

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestOneValueAndNothingElse(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1}`:         "",
		" {\"a\":1} \n\t": "",
		``:                "EOF",
		" \n":             "EOF",
		`{"a":1`:          "unexpected EOF",
		`{"a":"1"}`:       "json: cannot unmarshal string into Go struct field .a of type int",
		`{"a":1,"b":2}`:   `json: unknown field "b"`,
		`{"a":1}{"a":2}`:  "something follows the JSON object",
		`{"a":1} null`:    "something follows the JSON object",
		`{"a":1}}`:        "invalid character '}' looking for beginning of value",
	} {
		var v struct {
			A int `json:"a"`
		}
		got := ""
		err := Decode(strings.NewReader(text), &v)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s; want %s", text, got, want)
		}
		if follows := strings.HasPrefix(text, `{"a":1}`) && err != nil; errors.Is(err, ErrMore) != follows {
			t.Errorf("%q: %v is ErrMore: %t", text, err, !follows)
		}
	}
}

// What ended the reading is still known.
func TestTheReadersErrorIsKept(t *testing.T) {
	for _, text := range []string{`{"a": 1`, `{"a": 1}`} {
		body := http.MaxBytesReader(nil, io.NopCloser(strings.NewReader(text+strings.Repeat(" ", 100))), int64(len(text)))
		err := Decode(body, &struct {
			A int `json:"a"`
		}{})
		var large *http.MaxBytesError
		if !errors.As(err, &large) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
