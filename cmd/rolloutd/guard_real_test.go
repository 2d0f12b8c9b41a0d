//go:build real

package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy"
	"github.com/sluice-proxy/sluice/examples/swarm/clients"
)

// peak is the most clients that joined within any window of length d between two
// moments, and how many did in all.
func peak(records []clients.Record, from, to time.Time, d time.Duration) (most, all int) {
	var at []time.Time
	for _, r := range records {
		if r.Kind == clients.Joined && r.At.After(from) && r.At.Before(to) {
			at = append(at, r.At)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	first := 0
	for i := range at {
		for at[i].Sub(at[first]) >= d {
			first++
		}
		most = max(most, i-first+1)
	}
	return most, len(at)
}

// TestRealStormGuard: a thousand clients come at once, and two Envoys let in what
// the guard allows and no more, whatever it is set to on the way; who was there
// before notices nothing.
func TestRealStormGuard(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.wish(0, 2)
	s.edge("edge-1", nil)
	s.edge("edge-2", nil)
	s.told(envoy.RuntimeType, envoy.RouteType, envoy.EndpointType, envoy.ExtensionType)
	before := s.crowd(50, clients.Reconnect{})
	s.connected(before, 50)

	guard := func(rate, proxies int) {
		t.Helper()
		more := ""
		if rate > 0 {
			more = fmt.Sprintf(", storm_guard: %d/s", rate)
		}
		s.pub.configure(s.config(more))
		s.wish(0, proxies)
		s.told(envoy.ExtensionType)
	}
	guard(50, 2)
	storm := s.crowd(1000, clients.Reconnect{Base: 100 * time.Millisecond, Max: time.Second})
	stretch := func(what string, rate int) {
		t.Helper()
		// What is seen at a client may come late on a busy machine, also a worker's
		// own change; what finds no client in time is lost to the storm.
		const late = 200 * time.Millisecond
		from := time.Now().Add(late)
		to := from.Add(3 * time.Second)
		s.until(what, func() error {
			if now := time.Now(); now.Before(to) {
				return fmt.Errorf("%s are left", to.Sub(now))
			}
			return nil
		})
		most, all := peak(storm.Records(), from, to, time.Second-late)
		t.Logf("%s: %d in 3 s, at most %d within %s", what, all, most, time.Second-late)
		if burst := max(2, rate/10); most > rate+burst || all > 3*rate+rate/5+burst || all < 3*rate/2 {
			t.Errorf("%s: %d in 3 s, at most %d within %s; %d/s is allowed", what, all, most, time.Second-late, rate)
		}
	}
	stretch("50/s over 2 proxies", 50)
	guard(50, 4)
	stretch("50/s over 4 proxies, of which 2 are here", 25)
	guard(120, 2)
	stretch("120/s over 2 proxies", 120)
	res, err := http.Get("http://" + s.web.String() + "/")
	for err == nil && res.StatusCode == http.StatusOK {
		_ = res.Body.Close()
		res, err = http.Get("http://" + s.web.String() + "/")
	}
	s.must(err)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" {
		t.Errorf("refused with %s, %v", res.Status, res.Header)
	}
	guard(0, 2)
	s.connected(storm, 1000)
	for _, r := range storm.Records() {
		if r.Kind == clients.Refused && r.Status != http.StatusServiceUnavailable {
			t.Errorf("client %d was refused with %d: %s", r.Client, r.Status, r.Cause)
		}
	}
	s.untouched(storm)
	s.untouched(before)
}

// TestRealGuardReloaded: SIGHUP sets, changes and lifts a storm guard of WebSockets
// and of raw TCP, and nobody is disconnected.
func TestRealGuardReloaded(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(20)
	c.on(chat, discovery.Blue)
	c.on(line, discovery.Blue)
	began := time.Now()
	s := &stage{t: t, ctx: w.ctx, web: w.web, raw: w.raw}
	pages := func(n int) (through int) {
		for range n {
			req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+w.web.String()+"/", nil)
			w.must(err)
			res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			w.must(err)
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				through++
			}
		}
		return through
	}
	for _, guard := range []string{", storm_guard: 1/s", "", ", storm_guard: 2/s"} {
		rest := strings.ReplaceAll(w.rest, "listener: web", "listener: web"+guard)
		w.must(w.ctl.Configure(strings.ReplaceAll(rest, "protocol: tcp", "protocol: tcp"+guard)))
		w.ctl.Reload()
		w.until("the guard"+guard, func() error {
			from := time.Now()
			got := []int{pages(30), s.asks(30)}
			most := 30
			if guard != "" {
				most = 3 + 2*int(time.Since(from).Seconds())
			}
			if slices.Max(got) > most || guard == "" && slices.Min(got) < 30 {
				return fmt.Errorf("%v of 30 got through", got)
			}
			return nil
		})
	}
	c.works()
	for _, of := range []discovery.Service{chat, line} {
		if left := c.left(of, began); len(left) > 0 {
			t.Errorf("%s: %d were disconnected: %+v", of, len(left), left[0])
		}
	}
}
