package consul

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
)

var justChat = map[discovery.Service]string{"chat": ""}

func TestNothingIsEmittedBeforeEveryServiceIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{index: 5, services: map[string]string{"chat": "b1 g1"}, hangs: true}
		w := run(t, a, Options{Services: map[discovery.Service]string{"chat": "", "mail": "post"}})
		if len(w.news()) != 0 || w.source.Waiting()["chat"] != "Consul was not asked yet" {
			t.Fatalf("emitted %v, waiting %v", w.news(), w.source.Waiting())
		}
		a.tell(func(a *agent) { a.hangs, a.status = false, http.StatusInternalServerError })
		synctest.Wait()
		const want = "Consul cannot be read: it answered 500 Internal Server Error: rpc error making call: No cluster leader"
		if len(w.news()) != 0 || w.source.Waiting()["mail"] != want {
			t.Fatalf("emitted %v, waiting %v", w.news(), w.source.Waiting())
		}
		a.tell(func(a *agent) { a.status = 0 })
		time.Sleep(time.Second)
		if got := w.news(); len(got) != 1 || in(got[0]["chat"]) != "b1 g1" || len(got[0]) != 2 || got[0]["mail"].Err != "" {
			t.Fatalf("emitted %+v", got)
		}
		if len(w.source.Waiting()) != 0 {
			t.Fatalf("waiting %v", w.source.Waiting())
		}
	})
}

// One service that cannot be read keeps the others waiting for a moment only, and a
// source that goes on from there does not take it for read.
func TestOneServiceThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{index: 5, services: map[string]string{"chat": "b1 g1"}, hidden: map[string]bool{"pay": true}}
		services := map[discovery.Service]string{"chat": "", "pay": ""}
		w := run(t, a, Options{Services: services})
		if len(w.news()) != 0 {
			t.Fatalf("emitted %+v at once", w.news())
		}
		time.Sleep(firstRead + time.Millisecond)
		const want = "Consul cannot be read: the token may not see pay; give it service:read on it and node:read"
		got := w.news()
		if len(got) != 1 || in(got[0]["chat"]) != "b1 g1" || got[0]["chat"].Unread != "" || got[0]["pay"].Unread != want || len(got[0]["pay"].Instances) != 0 {
			t.Fatalf("emitted %+v", got)
		}
		next := run(t, a, Options{Services: services, Previous: got[0]})
		time.Sleep(firstRead + time.Millisecond)
		if got := next.news(); len(got) != 1 || got[0]["pay"].Unread != want {
			t.Fatalf("the next source emitted %+v", got)
		}
		a.tell(func(a *agent) { a.hidden, a.services["pay"] = nil, "b9" })
		time.Sleep(10 * time.Second)
		if got := w.news(); in(got[len(got)-1]["pay"]) != "b9" || got[len(got)-1]["pay"].Unread != "" {
			t.Fatalf("emitted %+v", got)
		}
	})
}

func TestAChangeIsNewsAtOnceAndAnEqualAnswerIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{index: 1, services: map[string]string{"chat": "b1 b2 g1"}}
		w := run(t, a, Options{Services: justChat})
		w.chat(t, 1)
		begin := time.Now()
		a.list("b1! b2 g1")
		if got := in(w.chat(t, 2)); got != "b1! b2 g1" {
			t.Fatal(got)
		}
		a.list("b2 g1 b1!") // a new index, another order
		w.chat(t, 2)
		if time.Since(begin) != 0 {
			t.Fatalf("it took %s", time.Since(begin))
		}
		time.Sleep(10 * time.Minute)
		w.chat(t, 2)
		if asked := a.queries(); len(asked) > 25 || asked[len(asked)-1] != "chat index=3 wait=30000ms" {
			t.Fatalf("asked %d times: %q", len(asked), asked)
		}
	})
}

func TestErrorsKeepTheLastGoodAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		wrong func(*agent)
		err   string
		after time.Duration // by when it is noticed
	}{
		"500": {func(a *agent) { a.status = 500 }, "it answered 500 Internal Server Error: rpc error making call: No cluster leader", 0},
		"a lost token": {func(a *agent) { a.filtered = true; a.services = nil; a.index++ },
			"the token may not see chat; give it service:read on it and node:read", 0},
		"no index": {func(a *agent) { a.index, a.hasty = 0, true }, "the answer has no index; check that the address is a Consul's", 0},
		"silence":  {func(a *agent) { a.hangs = true }, "it did not answer within 41.875s", 42 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &agent{index: 7, services: map[string]string{"chat": "b1 g1!"}}
				w := run(t, a, Options{Services: justChat})
				w.chat(t, 1)
				a.tell(c.wrong)
				time.Sleep(c.after)
				got := w.chat(t, 2)
				if in(got) != "b1 g1!" || got.Err != "Consul cannot be read: "+c.err+"; the last good answer is shown" {
					t.Fatalf("%+v", got)
				}
				a.queries()
				a.tell(func(a *agent) {
					a.status, a.filtered, a.hangs, a.hasty, a.index = 0, false, false, false, 3 // it began anew
					a.services = map[string]string{"chat": "b1! g1"}
				})
				time.Sleep(11 * time.Second)
				if got := w.chat(t, 3); in(got) != "b1! g1" || got.Err != "" {
					t.Fatalf("%+v", got)
				}
			})
		})
	}
}

func TestRetriesAreSpreadAndNeverStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{services: map[string]string{"chat": "b1"}, status: 503}
		w := run(t, a, Options{Services: justChat})
		time.Sleep(10 * time.Second)
		early := len(a.queries())
		time.Sleep(10 * time.Minute)
		late := len(a.queries())
		// Full jitter: a pause is half its limit in the mean, 100 ms at first, 10 s in the end.
		if early < 5 || early > 60 || late < 70 || late > 240 {
			t.Fatalf("%d queries in the first 10 s, %d in the next 10 minutes", early, late)
		}
		a.tell(func(a *agent) { a.status, a.index = 0, 1 })
		time.Sleep(10 * time.Second)
		w.chat(t, 1)
	})
}

func TestAnIndexThatGoesBackwardsIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{index: 900, services: map[string]string{"chat": "b1 b2"}}
		w := run(t, a, Options{Services: justChat})
		a.tell(func(a *agent) { a.index, a.services["chat"] = 12, "b1 b2!" }) // who waits for 901 hears of it when its wait is over
		time.Sleep(wait + wait/16 + 10*time.Millisecond)
		if got := in(w.chat(t, 2)); got != "b1 b2!" {
			t.Fatal(got)
		}
		asked := a.queries()
		if last := asked[len(asked)-2:]; last[0] != "chat" || last[1] != "chat index=12 wait=30000ms" {
			t.Fatalf("%q", asked)
		}
		a.list("b1! b2!")
		if got := in(w.chat(t, 3)); got != "b1! b2!" {
			t.Fatal(got)
		}
	})
}

func TestAnAgentThatNeverWaitsIsNotAskedInALoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{index: 1, hasty: true, services: map[string]string{"chat": "b1"}}
		w := run(t, a, Options{Services: justChat})
		time.Sleep(time.Minute)
		w.chat(t, 1)
		if n := len(a.queries()); n > 1200 {
			t.Fatalf("%d queries in a minute", n)
		}
	})
}

func TestAShrinkIsConfirmedByAConsistentRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{index: 1, services: map[string]string{"chat": "b1 b2 b3 g1 g2 g3"}}
		w := run(t, a, Options{Services: justChat})
		w.chat(t, 1)
		a.list("g1! g2")
		got := w.chat(t, 2)
		if in(got) != "b1 b2 b3 g1! g2 g3" || got.Suspect != "Consul no longer lists 3 of the 3 known blue and 1 of the 3 known green instances of chat; they are kept until the same is read 10s later" {
			t.Fatalf("%+v", got)
		}
		time.Sleep(9990 * time.Millisecond)
		w.chat(t, 2)
		time.Sleep(time.Second) // the blocking query's sixteenth
		if got := w.chat(t, 3); in(got) != "g1! g2" || got.Suspect != "" {
			t.Fatalf("%+v", got)
		}
		consistent := 0
		for _, q := range a.queries() {
			if strings.HasSuffix(q, "consistent") {
				consistent++
			}
		}
		if consistent != 1 {
			t.Fatalf("%d consistent reads", consistent)
		}
	})
}

func TestNothingIsNeverBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{index: 800, services: map[string]string{"chat": "b1 b2! g1"}}
		w := run(t, a, Options{Services: justChat})
		a.tell(func(a *agent) { a.status = 500 })
		time.Sleep(time.Minute)
		a.tell(func(a *agent) { a.status, a.index, a.services["chat"] = 0, 3, "" }) // back, empty
		time.Sleep(time.Hour)
		news := w.news()
		got := news[len(news)-1]["chat"]
		if in(got) != "b1 b2! g1" || got.Err != "" || got.Suspect != "Consul lists no instance of chat; the 3 last known are kept until it lists some again" {
			t.Fatalf("%+v", got)
		}
		n := len(news)
		a.list("b1 b2 g1")
		if got := w.chat(t, n+1); in(got) != "b1 b2 g1" || got.Suspect != "" {
			t.Fatalf("%+v", got)
		}
	})
}

func TestPreviousSurvivesAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agent{index: 4, services: map[string]string{"chat": ""}, hangs: true}
		previous := discovery.Snapshot{"chat": translate(entries("b1 g1"), plain), "gone": {}}
		w := run(t, a, Options{Services: justChat, Previous: previous})
		if got := w.chat(t, 1); in(got) != "b1 g1" || len(w.news()[0]) != 1 || len(w.source.Waiting()) != 0 {
			t.Fatalf("%+v, waiting %v", w.news(), w.source.Waiting())
		}
		a.tell(func(a *agent) { a.hangs = false })
		if got := w.chat(t, 2); in(got) != "b1 g1" || got.Suspect == "" {
			t.Fatalf("%+v", got)
		}
	})
}

func TestNoServicesIsAWholeWorld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, &agent{}, Options{})
		if news := w.news(); len(news) != 1 || len(news[0]) != 0 {
			t.Fatalf("%+v", news)
		}
	})
}

func TestWhatIsLeftOutIsLoggedOncePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := &agent{index: 1, services: map[string]string{"chat": "b1 b2?"}}
		w := run(t, a, Options{Services: justChat, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		w.chat(t, 1)
		a.list("b1! b2?")
		w.chat(t, 2)
		a.list("b1! b2? b3?")
		w.chat(t, 3)
		a.list("b1! b2 b3")
		w.chat(t, 4)
		if got := strings.Count(out.String(), "are left out"); got != 2 || strings.Count(out.String(), "\n") != 3 {
			t.Fatal(out.String())
		}
	})
}

func TestNewRefuses(t *testing.T) {
	many := map[discovery.Service]string{}
	for i := range 151 {
		many[discovery.Service(fmt.Sprint("s", i))] = ""
	}
	for want, o := range map[string]Options{
		"151 services are more than the 150":      {Services: many},
		`both colours have the tag "x"`:           {BlueTag: "x", GreenTag: "x"},
		`service chat: "../kv" is no service of`:  {Services: map[discovery.Service]string{"chat": "../kv"}},
		"Unknown protocol scheme: gopher":         {Address: "gopher://consul"},
		`both colours have the tag "green"; give`: {BlueTag: "green"},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	delete(many, "s0")
	if _, err := New(Options{Services: many}); err != nil {
		t.Errorf("150 services: %v", err)
	}
}
