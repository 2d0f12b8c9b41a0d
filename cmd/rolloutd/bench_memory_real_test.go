//go:build real

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// BenchmarkMemory is the memory of a rolloutd process, and the CPU time it takes,
// while nothing happens: 10 services × 100 instances, whose drain endpoints all
// answer at addresses of their own, and one real Envoy.
func BenchmarkMemory(b *testing.B) {
	idle(b, 10, func(ctx context.Context, d *fleet.Rolloutd) {
		envoy, _, err := fleet.StartEnvoy(ctx, fleet.EnvoyOptions{Node: "edge-0", XDS: d.XDS, Dir: b.TempDir()})
		must(b, err)
		b.Cleanup(envoy.Kill)
	}, 1)
}

// BenchmarkIdle is the same with 100 services × 100 instances and 100 proxies, which hear
// and acknowledge as Envoy does and report nothing.
func BenchmarkIdle(b *testing.B) {
	const proxies = 100
	idle(b, 100, func(_ context.Context, d *fleet.Rolloutd) {
		for i := range proxies {
			listenAt(b, d.XDS.String(), fmt.Sprint("edge-", i), nil)
		}
	}, proxies)
}

// idle measures a rolloutd with these services, of 100 instances each, after so many
// proxies were started and have everything. start-ms is from the start of its process,
// when all was known before, until it is ready.
func idle(b *testing.B, services int, start func(context.Context, *fleet.Rolloutd), proxies int) {
	const each = 100
	const window = time.Minute // two rounds of asking every instance
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	dir := b.TempDir()
	rest, names := someServices(b, services)
	path := filepath.Join(dir, "fleet.yaml")
	writeFleet(b, path, names, gates(b, services*each))
	bin := got(fleet.BuildBin(ctx, b.TempDir()))(b)
	d := got(fleet.StartRolloutd(ctx, fleet.RolloutdOptions{Bin: bin, Dir: dir, Discovery: fmt.Sprintf("{file: %q}", path), Rest: rest}))(b)
	b.Cleanup(func() { d.Stop(5 * time.Second) })
	client := got(d.Client())(b)
	all := func(ctx context.Context) error {
		world, err := client.Status(ctx)
		if err != nil {
			return err
		}
		for _, s := range world.Services {
			for _, i := range s.Instances {
				if i.Held == nil {
					return fmt.Errorf("instance %s has not answered yet", i.ID)
				}
			}
			if len(s.Instances) != each {
				return fmt.Errorf("%s has %d instances", s.Service, len(s.Instances))
			}
		}
		return nil
	}
	must(b, d.Await(ctx, all))
	d.Stop(5 * time.Second)
	began := time.Now()
	must(b, d.Start(ctx))
	ready := time.Since(began)
	start(ctx, d)
	must(b, d.Await(ctx, func(ctx context.Context) error {
		world, err := client.Status(ctx)
		if err != nil {
			return err
		}
		for _, s := range world.Services {
			if s.Proxies.Confirmed != proxies {
				return fmt.Errorf("%s has %d confirmations", s.Service, s.Proxies.Confirmed)
			}
		}
		return all(ctx)
	}))
	var cpu time.Duration
	for b.Loop() {
		before := cpuTime(b, d.PID())
		select {
		case <-time.After(window):
		case <-d.Done():
			b.Fatal(d.Log())
		}
		cpu = cpuTime(b, d.PID()) - before
	}
	b.ReportMetric(memory(b, d.PID(), "VmRSS:"), "rss-MB")
	b.ReportMetric(memory(b, d.PID(), "VmHWM:"), "peak-MB")
	b.ReportMetric(float64(cpu.Milliseconds())/window.Seconds(), "cpu-ms/s")
	b.ReportMetric(float64(ready.Milliseconds()), "start-ms")
	b.ReportMetric(0, "ns/op")
}

// memory reads a figure of a process, in units of 10⁶ bytes.
func memory(b *testing.B, pid int, key string) float64 {
	b.Helper()
	status := got(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)))(b)
	_, rest, _ := strings.Cut(string(status), key)
	kib := got(strconv.Atoi(strings.Fields(rest)[0]))(b)
	return float64(kib) * 1024 / 1e6
}

// cpuTime is what a process has used, user and system.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat := got(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)))(b)
	// The name, in brackets, may hold blanks; utime is the twelfth field after it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	ticks := got(strconv.Atoi(string(fields[11])))(b) + got(strconv.Atoi(string(fields[12])))(b)
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// BenchmarkLook is what one look of the controller at 10 services × 100 instances
// costs, when there is nothing to decide.
func BenchmarkLook(b *testing.B) {
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	rest, names := someServices(b, 10)
	path := filepath.Join(b.TempDir(), "fleet.yaml")
	writeFleet(b, path, names, gates(b, 1000))
	p := startBenched(b, fmt.Sprintf("{file: %q}", path), rest)
	for answered := 0; answered < 1000; {
		views, newer := p.control.Views()
		answered = 0
		for _, v := range views {
			answered += len(v.Seen.Instances)
		}
		select {
		case <-newer:
		case <-ctx.Done():
			b.Fatalf("%d of 1000 instances have answered", answered)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		// A command that changes nothing; the loop takes the next one after a look.
		if _, err := p.control.Do(ctx, rollout.Promote{Service: names[0], Target: discovery.Blue}); err != nil {
			b.Fatal(err)
		}
	}
}
