//go:build real

package rolloutd_test

import (
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// values is a real Prometheus that reads the gauge errors, 0.001 at first.
func values(t *testing.T) (p *fleet.Prometheus, set func(value float64)) {
	t.Helper()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "errors"})
	registry := prometheus.NewRegistry()
	registry.MustRegister(gauge)
	gauge.Set(0.001)
	srv := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(srv.Close)
	p, err := fleet.StartPrometheus(t.Context(), t.TempDir(), netip.MustParseAddrPort(srv.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() }) // of the process that runs then
	return p, gauge.Set
}

func (w *world) says(s discovery.Service, text string) {
	w.t.Helper()
	w.await(s, text, func(st api.Status) bool { return strings.Contains(st.Reason.Text, text) })
}

// executable writes a program into the world's folder.
func executable(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRealGates: the funnel goes on only while every gate is open; a Prometheus
// that is down and a gate that is closed hold it, and say so.
func TestRealGates(t *testing.T) {
	t.Parallel()
	prom, set := values(t)
	dir := t.TempDir()
	smoke := executable(t, dir, "test -e "+dir+"/broken || exit 0; echo 'the smoke test saw an error'; exit 1")
	w := start(t, plan{
		chats: 2, more: "prometheus: {address: 'http://" + prom.HTTP.String() + "'}\n",
		policy: "{funnel: 10/500ms, return_timeout: 30s, gates: [{name: errors, query: errors, below: 0.01}, {name: smoke, command: [" + smoke + "]}]}",
	})
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(160) // enough for every trouble to come in the middle
	c.on(chat, discovery.Blue)

	set(0.031)
	began := time.Now()
	id := w.promote(chat, api.Promotion{Target: "green"})
	w.says(chat, "gate errors is closed: 0.031 is not below 0.01")
	c.quiet(chat, 3*half.Every.D())
	if n := len(c.left(chat, began)); n > 0 {
		t.Errorf("%d were disconnected while the gate was closed from the start", n)
	}
	set(0.001)
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })

	// In the middle, each holds it within a step.
	for text, trouble := range map[string]struct{ begin, end func() }{
		"gate errors is closed: Prometheus does not answer: ": {
			func() { prom.Kill() }, func() { w.must(prom.Start(w.ctx)) }},
		"gate errors is closed: 0.2 is not below 0.01": {
			func() { set(0.2) }, func() { set(0.001) }},
		"gate smoke is closed: program exits with 1: the smoke test saw an error": {
			func() { w.must(os.WriteFile(dir+"/broken", nil, 0o600)) }, func() { w.must(os.Remove(dir + "/broken")) }},
	} {
		trouble.begin()
		w.says(chat, text)
		c.quiet(chat, 3*half.Every.D())
		held := w.await(chat, "the rollout", func(st api.Status) bool { return st.Rollout != nil }).Rollout.Evicted
		trouble.end()
		w.await(chat, "more evictions", func(st api.Status) bool { return st.Rollout == nil || st.Rollout.Evicted > held })
	}
	c.on(chat, discovery.Green)
	r := w.done(chat, id)
	if r.Outcome != state.Done {
		t.Errorf("%s ended %s", id, r.Outcome)
	}
	c.kept(chat, began, half, r)
}

// TestRealGateAborts: a gate that stays closed turns the rollout back, paced.
func TestRealGateAborts(t *testing.T) {
	t.Parallel()
	prom, set := values(t)
	w := start(t, plan{
		chats: 2, more: "prometheus: {address: 'http://" + prom.HTTP.String() + "'}\n",
		policy: "{funnel: 10/500ms, return_timeout: 30s, abort_after: 2s, gates: [{name: errors, query: errors, below: 0.01}]}",
	})
	w.startEnvoy("edge-1", w.ctl.XDS)
	c := w.gather(40)
	c.on(chat, discovery.Blue)
	began := time.Now()
	id := w.promote(chat, api.Promotion{Target: "green"})
	w.await(chat, "the first evictions", func(st api.Status) bool { return st.Rollout != nil && st.Rollout.Evicted > 0 })
	// A Prometheus that is down is no reason to go back.
	prom.Kill()
	w.says(chat, "gate errors is closed: Prometheus does not answer: ")
	c.quiet(chat, 3*time.Second)
	if st, err := w.api.Service(w.ctx, chat); err != nil || st.Phase == api.Aborting {
		t.Errorf("it goes back: %+v, %v", st.Reason, err)
	}
	set(0.5)
	w.must(prom.Start(w.ctx))
	w.await(chat, "it to go back", func(st api.Status) bool { return st.Phase == api.Aborting })
	c.on(chat, discovery.Blue)
	r := w.done(chat, id)
	if r.Outcome != state.Aborted {
		t.Errorf("%s ended %s", id, r.Outcome)
	}
	c.kept(chat, began, half, r)
}
