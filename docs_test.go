package sluice_test

import (
	"go/ast"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryRoomIsOnTheMap: the architecture names each folder that holds code.
func TestEveryRoomIsOnTheMap(t *testing.T) {
	text := read(t, "docs/architecture.md")
	missing := map[string]bool{}
	for _, f := range sources(t) {
		if f.dir() != "." && !strings.Contains(text, "`"+f.dir()+"`") {
			missing[f.dir()] = true
		}
	}
	for dir := range missing {
		t.Errorf("docs/architecture.md does not name `%s`; give it a line on the map", dir)
	}
}

var (
	// A path has a slash inside or ends as the files of the root do.
	aPath = regexp.MustCompile(`^(\.?\w[\w.*-]*/[\w.*/-]*|\w+\.(go|md|mod|work))$`)
	// A function is written as f(), a method as Type.f(), what a package declares as
	// pkg.Name.
	aFunc = regexp.MustCompile(`^(?:(\w+)\.)?(\w+)\(\)$`)
	aName = regexp.MustCompile(`^([a-z]\w*)\.([A-Z]\w*)$`)
)

// TestPapersNameWhatIsThere: each path in the papers exists, each function is
// declared in a file or folder that the same paragraph names, and each pkg.Name in a
// package of ours.
func TestPapersNameWhatIsThere(t *testing.T) {
	code := declarations(t)
	for _, paper := range []string{"docs/architecture.md", "CONTRIBUTING.md", "CHANGELOG.md"} {
		text := read(t, paper)
		for _, to := range names(`\]\(([^)#:]+)(?:#[^)]*)?\)`, text) {
			if !exists(path.Join(path.Dir(paper), to)) {
				t.Errorf("%s links to %s, which is not there", paper, to)
			}
		}
		for _, paragraph := range regexp.MustCompile(`\n\n|\n(?:\d+\.|[*-]) `).Split(text, -1) {
			spans := names("`([^`\n]+)`", paragraph)
			var places []string
			for i := range spans {
				spans[i] = strings.TrimPrefix(spans[i], module)
				if span := spans[i]; aPath.MatchString(span) {
					places = append(places, strings.TrimSuffix(span, "/"))
					if !exists(places[len(places)-1]) {
						t.Errorf("%s names %s, which is not there", paper, span)
					}
				}
			}
			for _, span := range spans {
				f, n := aFunc.FindStringSubmatch(span), aName.FindStringSubmatch(span)
				here := func(d declaration) bool { return d.name == f[2] && d.isOf(f[1]) && d.isIn(places) }
				anywhere := func(d declaration) bool { return d.name == n[2] && d.pkg == n[1] }
				switch {
				case aPath.MatchString(span):
				case f != nil && !slices.ContainsFunc(code, here):
					t.Errorf("%s names %s, which none of %q declares", paper, span, places)
				case n != nil && !slices.ContainsFunc(code, anywhere):
					t.Errorf("%s names %s, which no package declares", paper, span)
				}
			}
		}
	}
}

func exists(pattern string) bool {
	found, err := fs.Glob(os.DirFS("."), pattern)
	return err == nil && len(found) > 0
}

// declaration is a function, a method of the type on, a type, a constant or a variable.
type declaration struct{ file, pkg, on, name string }

func (d declaration) isIn(places []string) bool {
	return slices.Contains(places, d.file) || slices.Contains(places, path.Dir(d.file))
}

// isOf: the qualifier is empty, the method's type, or the function's package.
func (d declaration) isOf(qualifier string) bool {
	return qualifier == "" || qualifier == d.on || d.on == "" && qualifier == d.pkg
}

func declarations(t *testing.T) (all []declaration) {
	for _, f := range sources(t) {
		add := func(on string, names ...*ast.Ident) {
			for _, name := range names {
				all = append(all, declaration{f.path, f.ast.Name.Name, on, name.Name})
			}
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				on := ""
				if d.Recv != nil {
					on = strings.Join(selectorPath(d.Recv.List[0].Type), ".")
				}
				add(on, d.Name)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						add("", s.Name)
					case *ast.ValueSpec:
						add("", s.Names...)
					}
				}
			}
		}
	}
	return all
}
