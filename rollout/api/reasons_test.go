package api_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestCodes holds every code of a reason or a refusal and what is said with it, as
// an operator reads it in the stories, while a state of the golden files is made,
// and in the answers of /v1. Texts that differ in numbers and names only are there
// once. A code that is in the code and is said nowhere has no story yet: tell one.
func TestCodes(t *testing.T) {
	said := texts(t)
	var got bytes.Buffer
	declared := codes(t)
	for _, code := range declared {
		fmt.Fprintln(&got, code)
		for _, shape := range slices.Sorted(maps.Keys(said[code])) {
			fmt.Fprintf(&got, "\t%s\n", said[code][shape])
		}
		if len(said[code]) == 0 {
			t.Errorf("nothing tells of %s", code)
		}
	}
	for code := range said {
		if !slices.Contains(declared, code) {
			t.Errorf("%s is told and declared nowhere", code)
		}
	}
	const path = "testdata/codes.txt"
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%s\nwant\n%s (%v)", &got, want, err)
	}
}

// codes lists the constants of type Code that rollout and what is below it declare,
// sorted.
func codes(t *testing.T) []string {
	var all []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for n := range ast.Preorder(file) {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				continue
			}
			name, _ := spec.Type.(*ast.Ident)
			if of, ok := spec.Type.(*ast.SelectorExpr); ok {
				name = of.Sel
			}
			for _, v := range spec.Values {
				if lit, ok := v.(*ast.BasicLit); ok && name != nil && name.Name == "Code" {
					code, err := strconv.Unquote(lit.Value)
					if err != nil {
						return err
					}
					all = append(all, code)
				}
			}
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		t.Fatalf("%d codes: %v", len(all), err)
	}
	slices.Sort(all)
	return all
}

// texts are what is said with each code: by shape, the first of its texts.
func texts(t *testing.T) map[string]map[string]string {
	all := map[string]map[string]string{}
	add := func(code, text string) {
		shape := regexp.MustCompile(`(blue|green|[a-z]+-[bg]?\d+|\b[bg]\d+|[\d.:]+m?s?\b)`).ReplaceAllString(text, "#")
		shape = regexp.MustCompile(`#(, #)+`).ReplaceAllString(shape, "#")
		if all[code] == nil {
			all[code] = map[string]string{}
		}
		if was, ok := all[code][shape]; !ok || text < was {
			all[code][shape] = text
		}
	}
	line := regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d  \S*\*? +(.*) \(([a-z_]+)\)$`)
	reason := regexp.MustCompile(`"code":"([a-z_]+)","text":("(?:[^"\\]|\\.)*")`)
	for _, pattern := range []string{"../testdata/stories/*.txt", "../testdata/states/*.txtar", "testdata/v1/*.txtar"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("nothing is told in %s: %v", pattern, err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(string(data)) {
				if m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n")); m != nil {
					add(m[2], m[1])
				}
				for _, m := range reason.FindAllStringSubmatch(l, -1) {
					text, err := strconv.Unquote(m[2])
					if err != nil {
						t.Fatal(err)
					}
					add(m[1], text)
				}
			}
		}
	}
	return all
}
