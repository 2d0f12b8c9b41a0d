package main

import (
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sluice-proxy/sluice/"

// rolloutctl starts in under 50 ms because nothing heavy is in it: no Envoy
// protos, no gRPC, no Consul client, in none of our packages that it imports.
func TestImportsNothingHeavy(t *testing.T) {
	seen := map[string]bool{}
	var visit func(pkg string)
	visit = func(pkg string) {
		if seen[pkg] {
			return
		}
		seen[pkg] = true
		files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pkg), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("package %s has no files: %v", pkg, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range parsed.Imports {
				path, err := strconv.Unquote(i.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				for _, heavy := range []string{"github.com/envoyproxy/", "google.golang.org/", "github.com/hashicorp/", "github.com/prometheus/"} {
					if strings.HasPrefix(path, heavy) {
						t.Errorf("%s imports %s, which makes rolloutctl slow to start", file, path)
					}
				}
				if ours, ok := strings.CutPrefix(path, module); ok {
					visit(ours)
				}
			}
		}
	}
	visit("cmd/rolloutctl")
	if !seen["rollout/api"] || !seen["envoy/bootstrap"] {
		t.Errorf("only %d packages were looked at", len(seen))
	}
}

// BenchmarkStart is the time of `rolloutctl version`, process and all.
func BenchmarkStart(b *testing.B) {
	bin := filepath.Join(b.TempDir(), "rolloutctl")
	build := exec.Command("go", "build", "-trimpath", "-o", bin, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := exec.Command(bin, "version").Run(); err != nil {
			b.Fatal(err)
		}
	}
}
