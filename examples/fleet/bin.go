package fleet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// BuildBin builds the programs from the sources around the working directory
// into dir, for tests: what they run is never stale.
func BuildBin(ctx context.Context, dir string) (Bin, error) {
	const module = "github.com/sluice-proxy/sluice"
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator),
		module+"/cmd/rolloutd", module+"/cmd/rolloutctl", module+"/cmd/drain-sidecar", module+"/examples/chat")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	return Bin(dir), nil
}

// Program is the path of one of them.
func (b Bin) Program(name string) (string, error) {
	path := filepath.Join(string(b), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not there: run make demo, or go build ./cmd/... and ./examples/... into %s", path, b)
	}
	return path, nil
}
