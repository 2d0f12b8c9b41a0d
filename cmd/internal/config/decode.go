package config

import (
	"encoding"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/cmd/internal/nearest"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// mostNodes bounds what a file may grow to through its aliases.
const mostNodes = 100_000

// source remembers where each key stands.
type source struct {
	file  string
	lines map[string]int
}

// line is where key stands; a key that was left out stands where the nearest
// one above it does.
func (s source) line(key string) int {
	for key != "" {
		if line, ok := s.lines[key]; ok {
			return line
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 0
}

func (s source) problem(key, text string) Problem {
	return Problem{File: s.file, Line: s.line(key), Key: key, Text: text}
}

// reading is one pass over a file. The yaml package's own decoder stops at the
// first value that does not read itself and knows no lines afterwards; this one
// goes on and remembers.
type reading struct {
	source
	nodes    int
	unread   []string // keys whose value has another shape than it must have
	problems Problems
	notes    Problems
}

// refuse records a problem. The first one of a key counts, and none of what is
// below an unread key does.
func (r *reading) refuse(key, format string, args ...any) {
	known := slices.ContainsFunc(r.problems, func(p Problem) bool { return p.Key == key })
	below := slices.ContainsFunc(r.unread, func(u string) bool { return u == "" || strings.HasPrefix(key, u+".") })
	if !known && !below {
		r.problems = append(r.problems, r.problem(key, fmt.Sprintf(format, args...)))
	}
}

func (r *reading) note(key, format string, args ...any) {
	r.notes = append(r.notes, r.problem(key, fmt.Sprintf(format, args...)))
}

// given: the file has a value for key.
func (r *reading) given(key string) bool {
	_, ok := r.lines[key]
	return ok
}

// value decodes n into v, which holds its default and keeps it if n is null or
// wrong.
func (r *reading) value(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if r.nodes++; r.nodes > mostNodes {
		r.refuse("", "is larger than %d values; split it", mostNodes)
		return
	}
	if n.ShortTag() == "!!null" {
		delete(r.lines, key)
		return
	}
	_, isText := v.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case v.Kind() == reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		setDefaults(fresh)
		v.Set(fresh)
		r.value(n, key, fresh.Elem())
	case v.Type() == reflect.TypeFor[units.Funnel]() && n.Kind == yaml.ScalarNode:
		r.funnel(n, key, v)
	case isText:
		r.text(n, key, v)
	case v.Kind() == reflect.Map:
		r.foreign(n, key, v)
	case v.Kind() == reflect.Struct:
		r.mapping(n, key, v)
	case v.Kind() == reflect.Slice:
		r.sequence(n, key, v)
	default:
		r.scalar(n, key, v)
	}
}

func (r *reading) mapping(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		r.refuse(key, "is %s; it must be a mapping with the keys %s", kind(n), strings.Join(keys(v.Type()), ", "))
		r.unread = append(r.unread, key)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		child := strings.TrimPrefix(key+"."+name.Value, ".")
		if _, twice := r.lines[child]; twice {
			r.refuse(child, "is there twice; line %d has it too", name.Line)
			continue
		}
		r.lines[child] = name.Line
		at := slices.Index(keys(v.Type()), name.Value)
		if at < 0 || name.Kind != yaml.ScalarNode {
			if near := nearest.Of(name.Value, keys(v.Type())); near != "" {
				r.refuse(child, "is no key here; did you mean %s?", near)
				continue
			}
			r.refuse(child, "is no key here; there are %s", strings.Join(keys(v.Type()), ", "))
			continue
		}
		r.value(value, child, field(v, name.Value))
	}
}

// foreign reads a mapping in words that are not ours.
func (r *reading) foreign(n *yaml.Node, key string, v reflect.Value) {
	var read map[string]any
	if n.Kind != yaml.MappingNode {
		r.refuse(key, "is %s; it must be a mapping", kind(n))
	} else if err := n.Decode(&read); err != nil {
		r.refuse(key, "cannot be read: %v", err)
	} else {
		v.Set(reflect.ValueOf(read))
	}
}

func (r *reading) sequence(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		r.refuse(key, "is %s; it must be a list", kind(n))
		return
	}
	v.SetZero() // a given list replaces the default one
	for i, item := range n.Content {
		fresh := reflect.New(v.Type().Elem())
		setDefaults(fresh)
		child := fmt.Sprintf("%s[%d]", key, i)
		r.lines[child] = item.Line
		r.value(item, child, fresh.Elem())
		v.Set(reflect.Append(v, fresh.Elem()))
	}
}

func (r *reading) scalar(n *yaml.Node, key string, v reflect.Value) {
	switch tag := n.ShortTag(); {
	case v.Kind() == reflect.String && n.Kind == yaml.ScalarNode && tag == "!!str":
		v.SetString(n.Value)
	case v.Kind() == reflect.String && n.Kind == yaml.ScalarNode:
		r.refuse(key, "is %s; it must be text, so write it in quotes", kind(n))
	case v.Kind() == reflect.Int && tag == "!!int":
		var number int
		if err := n.Decode(&number); err != nil {
			r.refuse(key, "%s is too large a number", n.Value)
			return
		}
		v.SetInt(int64(number))
	case v.Kind() == reflect.Float64 && (tag == "!!int" || tag == "!!float"):
		var number float64
		if err := n.Decode(&number); err != nil || math.IsNaN(number) || math.IsInf(number, 0) {
			r.refuse(key, "%s is no finite number", n.Value)
			return
		}
		v.SetFloat(number)
	case v.Kind() == reflect.Float64:
		r.refuse(key, "is %s; it must be a number", kind(n))
	case v.Kind() == reflect.Bool && (n.Value == "true" || n.Value == "false") && tag == "!!bool":
		v.SetBool(n.Value == "true")
	case v.Kind() == reflect.Bool:
		r.refuse(key, "is %s; it must be true or false", kind(n))
	case v.Kind() == reflect.Int:
		r.refuse(key, "is %s; it must be a whole number", kind(n))
	default:
		r.refuse(key, "is %s; it must be text", kind(n))
	}
}

func (r *reading) text(n *yaml.Node, key string, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		r.refuse(key, "is %s; it must be a single value", kind(n))
		return
	}
	fresh := reflect.New(v.Type()) // an error may leave anything behind
	err := fresh.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value))
	switch _, isAddress := fresh.Interface().(*netip.AddrPort); {
	case err == nil:
		v.Set(fresh.Elem())
	case isAddress:
		r.refuse(key, "%q is no address; write it as IP:port, such as 127.0.0.1:8080", n.Value)
	default:
		r.refuse(key, "%v", err)
	}
}

// funnel reads the short form, 500/3s.
func (r *reading) funnel(n *yaml.Node, key string, v reflect.Value) {
	f, err := units.ParseFunnel(n.Value)
	if err != nil {
		r.refuse(key, "%v", err)
		return
	}
	v.Set(reflect.ValueOf(f))
}

// kind says what a value is, for an error.
func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!int" || n.ShortTag() == "!!float":
		return "the number " + n.Value
	case n.ShortTag() == "!!bool":
		return "the truth value " + n.Value
	}
	return fmt.Sprintf("%q", n.Value)
}

// keys lists what a struct has in YAML, in its own order; what it embeds stands
// beside the rest.
func keys(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		if f.Anonymous {
			names = append(names, keys(f.Type)...)
		} else if tag := f.Tag.Get("yaml"); tag != "" && tag != "-" {
			names = append(names, tag)
		}
	}
	return names
}

func field(v reflect.Value, name string) reflect.Value {
	for f, value := range v.Fields() {
		switch {
		case f.Anonymous && slices.Contains(keys(f.Type), name):
			return field(value, name)
		case f.Tag.Get("yaml") == name:
			return value
		}
	}
	panic("no field " + name)
}

func setDefaults(v reflect.Value) {
	if d, ok := v.Interface().(interface{ defaults() }); ok {
		d.defaults()
	}
}
