package main

import (
	"github.com/prometheus/client_golang/prometheus"
)

// loadMetrics are the samples of what only the proxies say, derived at each scrape.
type loadMetrics struct {
	loads                              *loads
	overflow, refused, ignored, silent *prometheus.Desc
}

func newLoadMetrics(l *loads) prometheus.Collector {
	return loadMetrics{
		loads:    l,
		overflow: desc("overflow_total", "Connections that the proxies' circuit breakers refused since rolloutd started.", "service", "colour"),
		refused:  desc("reports_refused_total", "Reports of the proxy that cannot be and were refused since rolloutd started.", "node"),
		ignored:  desc("reports_ignored", "Clusters that the proxy reports and that were never published.", "node"),
		silent:   desc("proxies_silent", "Proxies that may hold connections of the colour and do not say how many.", "service", "colour"),
	}
}

func (m loadMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.overflow, m.refused, m.ignored, m.silent} {
		ch <- d
	}
}

func (m loadMetrics) Collect(ch chan<- prometheus.Metric) {
	s := sample{ch: ch}
	m.loads.mu.Lock()
	seen := m.loads.seen
	m.loads.mu.Unlock()
	for name, c := range seen {
		for colour, n := range c.overflow {
			s.counter(m.overflow, &n, string(name), string(colour))
		}
		for colour, w := range c.witnesses {
			s.gauge(m.silent, float64(len(w.Missing)), string(name), string(colour))
		}
	}
	for _, r := range m.loads.pub.hub.Reporters() {
		s.counter(m.refused, &r.Refused, r.Node)
		s.gauge(m.ignored, float64(len(r.Ignored)), r.Node)
	}
}
