// Package launch is how the project's servers begin: the flags that all of them
// have, their log, and how they spare memory.
package launch

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
)

// Parse reads the arguments into flags, which bear the program's name and where it
// writes, and adds --log-json and --version. A nil logger says that the program
// ends now, with the code: what there was to say has been said.
func Parse(flags *flag.FlagSet, args []string, version string) (logger *slog.Logger, code int) {
	asJSON := flags.Bool("log-json", false, "log in JSON")
	printVersion := flags.Bool("version", false, "print the version and end")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, 0
	case err != nil:
		return nil, 2
	case *printVersion:
		fmt.Fprintln(flags.Output(), flags.Name()+" "+version)
		return nil, 0
	case *asJSON:
		return slog.New(slog.NewJSONHandler(flags.Output(), nil)), 0
	}
	return slog.New(slog.NewTextHandler(flags.Output(), nil)), 0
}

// SpareMemory, called first in main, is for programs whose memory is mostly the
// stacks and buffers of idle connections: garbage is little, and collecting it
// earlier saves more than it costs. GOGC, where it is set, goes before.
func SpareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	runtime.MemProfileRate = 0 // nobody can ask for the profile, which is kept in memory
}
