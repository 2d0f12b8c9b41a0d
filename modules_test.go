package sluice_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryModuleIsInTheWorkspace: "work", which make runs, is what go.work lists.
func TestEveryModuleIsInTheWorkspace(t *testing.T) {
	listed := names(`(?m)^\t\./?(\S*)$`, read(t, "go.work"))
	var found []string
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.Name() == "go.mod":
			found = append(found, strings.TrimPrefix(path.Dir(name), "."))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(listed)
	slices.Sort(found)
	if !slices.Equal(listed, found) {
		t.Errorf("go.work lists the modules %q, but there are %q", listed, found)
	}
}

// TestModulesRequireWhatTheyServe: what the product's users get with it.
func TestModulesRequireWhatTheyServe(t *testing.T) {
	if text := read(t, "rollout/drain/go.mod"); strings.Contains(text, "require") {
		t.Errorf("rollout/drain requires something; its importers would get it, too:\n%s", text)
	}
	root := read(t, "go.mod")
	for _, tried := range []string{
		"github.com/coder/websocket", "github.com/gorilla/websocket", "github.com/nats-io/", "github.com/mochi-mqtt/", "github.com/eclipse/paho", "gonum.org/",
	} {
		if strings.Contains(root, tried) {
			t.Errorf("go.mod has %s; what only tests and examples need stands in test/thirdparty/go.mod or examples/go.mod", tried)
		}
	}
}

// TestADrainImporterGetsOneModule: the library's examples are an author's programs,
// in a module of their own with an older Go.
func TestADrainImporterGetsOneModule(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for file, example := range map[string]string{"http": "ExampleGate_Handler", "tcp": "ExampleGate_Listener", "admit": "ExampleGate_Admit"} {
		text := read(t, "rollout/drain/example_"+file+"_test.go")
		program := strings.Replace(text, "func "+example+"()", "func main()", 1)
		if program == text {
			t.Fatalf("example_%s_test.go has no %s", file, example)
		}
		write(file+"/main.go", strings.Replace(program, "package drain_test", "package main", 1))
	}
	library, err := filepath.Abs("rollout/drain")
	if err != nil {
		t.Fatal(err)
	}
	const goLine = "go 1.24\n"
	write("go.mod", fmt.Sprintf("module example.com/author\n\n%s\nreplace %srollout/drain => %s\n", goLine, module, library))
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOPROXY=off", "GOFLAGS=", "GOTOOLCHAIN=local")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("mod", "tidy")
	run("vet", "./...")
	if all := run("list", "-m", "all"); !regexp.MustCompile(`^example\.com/author\n\S+/rollout/drain v\S+ => \S+\n$`).MatchString(all) {
		t.Errorf("an author gets more than the library:\n%s", all)
	}
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), goLine) {
		t.Errorf("an author's go line was raised:\n%s", data)
	}
}
