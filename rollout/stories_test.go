package rollout_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/sluice-proxy/sluice/rollout"
)

var update = flag.Bool("update", false, "rewrite what the stories in testdata/stories tell")

// TestStories plays testdata/stories/*.txt in the simulated world. Each file of
// the archive is a command (see teller.commands), its content what an operator
// would see from then on: the phase and the reason whenever they change, what
// goes into the rollout's history, what instances and proxies are told; after
// "run", who holds how much. Times are those of the world's clock, in UTC.
func TestStories(t *testing.T) {
	stories, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(stories) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range stories {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := &teller{t: t}
			for i, f := range archive.Files {
				got := s.tell(f.Name)
				if !bytes.Equal(got, f.Data) && !*update {
					t.Errorf("%s\n%s\nwant\n%s", f.Name, got, f.Data)
				}
				archive.Files[i].Data = got
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A sentence for an operator at night: plain words, what is waited for, no
// sentence without an end.
func TestReasonsReadWell(t *testing.T) {
	stories, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var told []byte
	for _, path := range stories {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, data...)
		for i, line := range strings.Split(string(data), "\n") {
			for _, bad := range []string{"%!", "<nil>", "context deadline", "failed to", "  waiting: waiting", "::", ": :", "()"} {
				if strings.Contains(line, bad) {
					t.Errorf("%s:%d: %q in %q", filepath.Base(path), i+1, bad, line)
				}
			}
		}
	}
	// Every code of a reason or a refusal is told by at least one story, but
	// aborting, at which no look comes to rest, and not_ready, which is said before
	// there is a state. TestCodes in rollout/api reads which codes there are.
	for _, code := range []rollout.Code{
		rollout.IsSteady, rollout.IsShifting, rollout.IsDraining, rollout.IsSoaking, rollout.IsRetired, rollout.Paused, rollout.NoHealthyLive, rollout.TargetClosed, rollout.TargetSick, rollout.Unconfirmed,
		rollout.Nacked, rollout.NoProxy, rollout.TurnedAway, rollout.Unpublished, rollout.Settling, rollout.GateOpen, rollout.InGrace, rollout.NoRoom, rollout.Unreachable, rollout.NoEndpoint, rollout.StaleDiscovery, rollout.StoreFailing, rollout.Unread,
		rollout.Contradicted, rollout.Ending, rollout.Twins, rollout.HeldOpen, rollout.Recoloured,
		rollout.FreshCounts, rollout.FreshGates, rollout.GateClosed, rollout.WindowFull, rollout.Learning, rollout.NotReturning, rollout.BatchSoak, rollout.HookRunning, rollout.HookFailed, rollout.HookTooLarge, rollout.Unreported,
		rollout.InProgress, rollout.NoRollout, rollout.NoTarget, rollout.Infeasible, rollout.BadRequest, rollout.UnknownService, rollout.NotStored,
	} {
		if !bytes.Contains(told, fmt.Appendf(nil, "(%s)", code)) {
			t.Errorf("no story tells of %s", code)
		}
	}
}
