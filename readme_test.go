package sluice_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The README is the product's face: what it names has to be there.
func TestREADME(t *testing.T) {
	readme := read(t, "README.md")

	targets := names(`(?m)^([a-z-]+):.*## `, read(t, "Makefile"))
	for _, target := range names("make ([a-z]+)", readme) {
		if !slices.Contains(targets, target) {
			t.Errorf("README names make %s, which the Makefile does not explain", target)
		}
	}

	for line := range strings.Lines(read(t, "go.mod") + read(t, "rollout/drain/grpcdrain/go.mod") + read(t, "examples/go.mod") + read(t, "test/thirdparty/go.mod")) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		direct := len(fields) == 2 && strings.HasPrefix(fields[1], "v") && !strings.HasPrefix(fields[0]+"/", module)
		if direct && !strings.Contains(readme, "`"+fields[0]+"`") && !strings.Contains(readme, "`…/"+fields[0][strings.LastIndex(fields[0], "/")+1:]+"`") {
			t.Errorf("README's table of dependencies lacks %s; say why it is there", fields[0])
		}
	}

	published := names(`desc\("([a-z_]+)"`, read(t, "cmd/rolloutd/metrics.go")+read(t, "cmd/rolloutd/loads_metrics.go"))
	told := names("sluice_([a-z_]+)[`{]", readme)
	for _, name := range published {
		if !slices.Contains(told, name) {
			t.Errorf("README lacks the metric sluice_%s", name)
		}
	}
	for _, name := range told {
		if !slices.Contains(published, name) {
			t.Errorf("README names the metric sluice_%s, which is not published", name)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// names are all first groups of the pattern's matches.
func names(pattern, text string) (out []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}
