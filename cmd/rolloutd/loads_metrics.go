package main

import (
	"github.com/prometheus/client_golang/prometheus"
)

// loadMetrics collects the samples that come from the reports of proxies alone, at each
// scrape.
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
	all := m.loads.traffic
	m.loads.mu.Unlock()
	for name, t := range all {
		for colour, n := range t.overflow {
			s.counter(m.overflow, &n, string(name), string(colour))
		}
		for colour, w := range t.witnesses {
			s.gauge(m.silent, float64(len(w.Missing)), string(name), string(colour))
		}
	}
	for _, r := range m.loads.pub.hub.Reporters() {
		s.counter(m.refused, &r.Refused, r.Node)
		s.gauge(m.ignored, float64(len(r.Ignored)), r.Node)
	}
}
