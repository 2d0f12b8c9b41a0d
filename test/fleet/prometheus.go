package fleet

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// PrometheusPath finds Prometheus.
func PrometheusPath() (string, error) { return Tool("PROMETHEUS", "prometheus", "prometheus-v0.316.0") }

// Prometheus is a real Prometheus on loopback. Kill and Start again leave its
// address as it is; its data begins anew, or it would tell what it knew last until
// it has found its target again. Methods of Process may be called concurrently, but
// not with Start.
type Prometheus struct {
	*Process
	// HTTP is where its API listens.
	HTTP netip.AddrPort
	dir  string
}

// StartPrometheus starts one on a free port with its files in dir, an existing
// folder. It reads /metrics of target five times a second.
func StartPrometheus(ctx context.Context, dir string, target netip.AddrPort) (*Prometheus, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	p := &Prometheus{HTTP: addr, dir: dir}
	text := fmt.Sprintf("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs: [{job_name: fleet, static_configs: [{targets: [%q]}]}]\n", target)
	if err := os.WriteFile(p.file(), []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("configure prometheus: %w", err)
	}
	return p, p.Start(ctx)
}

func (p *Prometheus) file() string { return filepath.Join(p.dir, "prometheus.yml") }

// Start starts it again after Kill and waits until it answers.
func (p *Prometheus) Start(ctx context.Context) error {
	path, err := PrometheusPath()
	if err != nil {
		return err
	}
	data, err := os.MkdirTemp(p.dir, "prometheus")
	if err != nil {
		return err
	}
	process, err := Start("prometheus", filepath.Join(p.dir, "prometheus.log"), path, "--config.file="+p.file(),
		"--storage.tsdb.path="+data, "--web.listen-address="+p.HTTP.String(), "--log.level=warn")
	if err != nil {
		return err
	}
	if err := process.Await(ctx, p.ready); err != nil {
		process.Kill()
		return err
	}
	p.Process = process
	return nil
}

func (p *Prometheus) ready(ctx context.Context) error {
	code, body, err := get(ctx, "http://"+p.HTTP.String()+"/-/ready")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("/-/ready answers %d: %s", code, strings.TrimSpace(body))
	}
	return err
}
