package rollout_test

import (
	"bytes"
	"encoding"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/sluice-proxy/sluice/rollout/state"
)

// TestStoredStates holds what is stored, byte for byte: a rolloutd that starts
// finds what the one before it has left, in whatever phase that was. In
// testdata/states each archive is a rollout of the small world and each file of it
// a moment, named "moment @time": the reasons and answers since the moment before,
// and then the state as it is stored.
func TestStoredStates(t *testing.T) {
	for name, play := range plays {
		t.Run(name, func(t *testing.T) {
			got := &txtar.Archive{}
			g := newGround(t, play.blue, play.green, play.connections)
			play.do(g, func(moment string) {
				t.Helper()
				got.Files = append(got.Files, txtar.File{Name: moment + " @" + g.now.Format(time.RFC3339Nano), Data: g.moment()})
			})
			path := filepath.Join("testdata", "states", name+".txtar")
			if *update {
				if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range got.Files {
				if i >= len(want.Files) || f.Name != want.Files[i].Name || !bytes.Equal(f.Data, want.Files[i].Data) {
					t.Errorf("%s\n%s\nis not what %s has", f.Name, f.Data, path)
				}
			}
			if len(got.Files) != len(want.Files) {
				t.Errorf("%d moments, %s has %d", len(got.Files), path, len(want.Files))
			}
		})
	}
	files, err := filepath.Glob("testdata/states/*.txtar")
	if err != nil || len(files) != len(plays) {
		t.Errorf("%d archives in testdata/states for %d plays: %v", len(files), len(plays), err)
	}
}

// moment is what was said since the moment before, and what is stored.
func (g *ground) moment() []byte {
	g.t.Helper()
	data, err := state.Encode(g.state)
	if err != nil {
		g.t.Fatal(err)
	}
	back, err := state.Decode(data)
	if err != nil {
		g.t.Fatal(err)
	}
	if again, err := state.Encode(back); err != nil || !bytes.Equal(again, data) {
		g.t.Errorf("what is read back is stored otherwise: %v\n%s\n%s", err, data, again)
	}
	said := g.log.String()
	g.log.Reset()
	return append([]byte(said), data...)
}

// stored yields the states in testdata/states, by "archive: moment".
func stored(t *testing.T) map[string][]byte {
	files, err := filepath.Glob("testdata/states/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no states: %v", err)
	}
	all := map[string][]byte{}
	for _, path := range files {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			lines := bytes.SplitAfter(f.Data, []byte("\n"))
			all[filepath.Base(path)+": "+f.Name] = lines[len(lines)-2]
		}
	}
	return all
}

// TestStoredStatesAreRead: what an older rolloutd has stored is read, whatever
// today's would store.
func TestStoredStatesAreRead(t *testing.T) {
	for name, data := range stored(t) {
		s, err := state.Decode(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again, err := state.Encode(s); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s is stored otherwise: %v\n%s\nwas\n%s", name, err, again, data)
		}
	}
}

// TestStoredStatesHaveEveryKey: no key of the state is in no golden state, where
// its loss would not show.
func TestStoredStatesHaveEveryKey(t *testing.T) {
	found := map[string]bool{}
	for name, data := range stored(t) {
		var v any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		keysOf(v, "", found)
	}
	for _, key := range slices.Sorted(keysOfType(reflect.TypeFor[state.State](), "")) {
		if !found[key] {
			t.Errorf("no golden state has %s", key)
		}
	}
}

// keysOf finds the keys of a JSON value; the ids of members count as *.
func keysOf(v any, at string, found map[string]bool) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			keysOf(x, at, found)
		}
	case map[string]any:
		for key, x := range v {
			if at == ".members" {
				key = "*"
			}
			found[at+"."+key] = true
			keysOf(x, at+"."+key, found)
		}
	}
}

// keysOfType yields the keys that encoding/json gives a type.
func keysOfType(of reflect.Type, at string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map}, of.Kind()) {
			if of.Kind() == reflect.Map {
				at += ".*"
			}
			of = of.Elem()
		}
		text := reflect.TypeFor[encoding.TextMarshaler]()
		if of.Kind() != reflect.Struct || of.Implements(text) || of.Implements(reflect.TypeFor[json.Marshaler]()) {
			return
		}
		for f := range of.Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			below := at + "." + key
			if f.Anonymous && key == "" {
				below = at
			} else if !f.IsExported() || key == "-" {
				continue
			} else if key == "" {
				below = at + "." + f.Name
			}
			if below != at && !yield(below) {
				return
			}
			for k := range keysOfType(f.Type, below) {
				if !yield(k) {
					return
				}
			}
		}
	}
}
