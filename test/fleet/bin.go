package fleet

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Bin is a folder with the project's own programs: rolloutd, rolloutctl,
// drain-sidecar, chat.
type Bin string

// OwnBin is the folder of the running program.
func OwnBin() (Bin, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the folder of this program: %w", err)
	}
	return Bin(filepath.Dir(path)), nil
}

// BuildBin builds the programs as make does, from the sources around the working
// directory into dir, for tests: what they run is never stale. They are no part of
// the test's binary: without a look at all folders here, go test would take its
// result from its cache although they have changed.
func BuildBin(ctx context.Context, dir string) (Bin, error) {
	const module = "github.com/sluice-proxy/sluice"
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find the sources: go list: %w", err)
	}
	for _, sources := range []string{"cmd", "discovery", "envoy", "examples", "internal", "rollout", "sidecar", "test", "xds"} {
		if err := fs.WalkDir(os.DirFS(strings.TrimSpace(string(root))), sources, seen); err != nil {
			return "", fmt.Errorf("look at the sources: %w", err)
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", dir+string(filepath.Separator),
		module+"/cmd/rolloutd", module+"/cmd/rolloutctl", module+"/cmd/drain-sidecar", module+"/examples/chat")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	return Bin(dir), nil
}

// seen leaves out what is installed and what tests write while they run.
func seen(_ string, d fs.DirEntry, err error) error {
	if err == nil && d.IsDir() && slices.Contains([]string{"node_modules", "testdata", "__pycache__"}, d.Name()) {
		return fs.SkipDir
	}
	return err
}

// Program is the path of one of them.
func (b Bin) Program(name string) (string, error) {
	path := filepath.Join(string(b), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not there: run make demo, or go build ./cmd/... and ./examples/... into %s", path, b)
	}
	return path, nil
}
