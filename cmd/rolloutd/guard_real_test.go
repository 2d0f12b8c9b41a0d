//go:build real

package main

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/envoy"
)

// peak is the most clients that joined within any window of length d between two
// moments, and how many did in all.
func peak(events []event, from, to time.Time, d time.Duration) (most, all int) {
	var at []time.Time
	for _, e := range events {
		if e.kind == joined && e.at.After(from) && e.at.Before(to) {
			at = append(at, e.at)
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
	before := s.herd(50, 0, 0)
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
	storm := s.herd(1000, 100*time.Millisecond, time.Second)
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
		most, all := peak(storm.all(), from, to, time.Second-late)
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
	for _, e := range storm.all() {
		if e.kind == refused && e.status != http.StatusServiceUnavailable {
			t.Errorf("a client was refused with %d: %s", e.status, e.cause)
		}
	}
	s.untouched(storm)
	s.untouched(before)
}
