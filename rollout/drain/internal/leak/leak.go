// Package leak fails the tests of a package that leave goroutines behind, with
// the standard library alone.
package leak

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long a goroutine may take to end after the last test.
const patience = 5 * time.Second

// Main is what TestMain calls. It does not return. Fuzzing leaves goroutines by
// itself and is not judged.
func Main(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if code == 0 && flag.Lookup("test.fuzz").Value.String() == "" {
		if left := Left(patience); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "%d goroutines are left behind:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// Left waits until no goroutine is there but the caller's and those of the runtime,
// at most for the patience; it returns the stacks of those that are.
func Left(patience time.Duration) (stacks []string) {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if stacks = others(); len(stacks) == 0 || time.Now().After(deadline) {
			return stacks
		}
	}
}

// others are the stacks of all goroutines but the caller's and what package
// runtime/pprof, os/signal and a test binary start for themselves.
func others() []string {
	b := make([]byte, 64<<10)
	for {
		n := runtime.Stack(b, true)
		if n < len(b) {
			b = b[:n]
			break
		}
		b = make([]byte, 2*len(b))
	}
	stacks := strings.Split(strings.TrimSpace(string(b)), "\n\n")[1:] // the caller's is the first
	return slices.DeleteFunc(stacks, func(s string) bool {
		return strings.Contains(s, "os/signal.signal_recv") || strings.Contains(s, "runtime/pprof.") ||
			strings.Contains(s, "testing.(*T).Run(") || strings.Contains(s, "testing.(*M).")
	})
}
