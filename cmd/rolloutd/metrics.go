package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// metrics derives every sample from the newest views and proxies at each scrape
// and remembers nothing: what is not known has no sample.
type metrics struct {
	views    func() map[discovery.Service]rollout.View
	proxies  func() []api.Proxy
	now      func() time.Time
	families families
}

func newMetrics(views func() map[discovery.Service]rollout.View, proxies func() []api.Proxy) prometheus.Collector {
	return metrics{views: views, proxies: proxies, now: time.Now, families: newFamilies()}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

// families are what can be asked for, one description each.
type families struct {
	connections      *prometheus.Desc
	ceiling          *prometheus.Desc
	evictedTotal     *prometheus.Desc
	acceptedTotal    *prometheus.Desc
	returnedTotal    *prometheus.Desc
	drainError       *prometheus.Desc
	rolloutEvicted   *prometheus.Desc
	outstanding      *prometheus.Desc
	atLeast          *prometheus.Desc
	rolloutLost      *prometheus.Desc
	neverBack        *prometheus.Desc
	pace             *prometheus.Desc
	alarm            *prometheus.Desc
	batch            *prometheus.Desc
	gateOpen         *prometheus.Desc
	capacity         *prometheus.Desc
	phase            *prometheus.Desc
	paused           *prometheus.Desc
	waiting          *prometheus.Desc
	weight           *prometheus.Desc
	instances        *prometheus.Desc
	departed         *prometheus.Desc
	leftOut          *prometheus.Desc
	discoveryError   *prometheus.Desc
	discoverySuspect *prometheus.Desc
	proxies          *prometheus.Desc
	unpublished      *prometheus.Desc
	nacksTotal       *prometheus.Desc
	withheld         *prometheus.Desc
	reported         *prometheus.Desc
	difference       *prometheus.Desc
	colourReported   *prometheus.Desc
	connectP99       *prometheus.Desc
}

func newFamilies() families {
	return families{
		connections:      desc("connections", "Connections the instance holds now.", "service", "colour", "instance", "node"),
		ceiling:          desc("ceiling", "Connections the instance may still hold by its current order.", "service", "colour", "instance", "node"),
		evictedTotal:     desc("evicted_total", "Connections closed by the funnel since the instance started.", "service", "colour", "instance", "node"),
		acceptedTotal:    desc("accepted_total", "Connections admitted since the instance started.", "service", "colour", "instance", "node"),
		returnedTotal:    desc("returned_total", "Admitted connections of returning clients since the instance started.", "service", "colour", "instance", "node"),
		drainError:       desc("drain_error", "1 while the instance's drain endpoint gives no answer.", "service", "colour", "instance", "node"),
		rolloutEvicted:   desc("rollout_evicted", "Connections closed by the funnel in the current rollout.", "service"),
		outstanding:      desc("outstanding", "Clients evicted or lost in the current rollout that are on their way; an estimate where instances cannot tell.", "service"),
		atLeast:          desc("outstanding_at_least", "Clients evicted or lost in the current rollout that are on their way for certain.", "service"),
		rolloutLost:      desc("rollout_lost", "Connections that ended with their instance in the current rollout.", "service"),
		neverBack:        desc("never_back", "Clients of the current rollout that are no longer waited for, where instances can tell.", "service"),
		pace:             desc("pace", "The most connections that the next step may close: the cap, less while the target suffers, more while it hurries.", "service"),
		alarm:            desc("alarm", "1 while the current rollout cannot keep its deadline at its cap.", "service"),
		batch:            desc("batch", "Batches of the current rollout that were begun.", "service"),
		gateOpen:         desc("gate_open", "1 while the gate was open when it was asked last.", "service", "gate"),
		capacity:         desc("capacity", "Connections that the colour's instances may hold in all, where each that takes new connections has a capacity.", "service", "colour"),
		phase:            desc("phase", "1 for the phase the service is in, 0 for the others.", "service", "phase"),
		paused:           desc("paused", "1 while the rollout is paused.", "service"),
		waiting:          desc("waiting", "1 while the service waits, with the reason's code.", "service", "reason"),
		weight:           desc("weight", "The colour's share of new connections, 0 to 1.", "service", "colour"),
		instances:        desc("instances", "Instances in discovery by health.", "service", "colour", "health"),
		departed:         desc("departed", "Instances that left discovery and are not proven empty.", "service", "colour"),
		leftOut:          desc("left_out", "Registrations that are not used.", "service"),
		discoveryError:   desc("discovery_error", "1 while discovery cannot be read and the last good content holds.", "service"),
		discoverySuspect: desc("discovery_suspect", "1 while a surprising change in discovery is not believed yet.", "service"),
		proxies:          desc("proxies", "Proxies that are connected, and those that acknowledged exactly what is published for the service.", "service", "state"),
		unpublished:      desc("unpublished", "1 while the proxies have not been sent what the state wishes.", "service"),
		nacksTotal:       desc("nacks_total", "Responses the proxy refused since rolloutd started.", "node"),
		withheld:         desc("withheld", "Resources that the proxy is not sent.", "node"),
		reported:         desc("reported_connections", "Connections to the instance by the proxies' load reports.", "service", "colour", "instance", "node"),
		difference:       desc("connections_difference", "Lasting difference: connections that the instance says it holds minus those that the proxies report; 0 while both agree.", "service", "colour", "instance", "node"),
		colourReported:   desc("colour_connections", "Connections to the colour by the proxies' own counters.", "service", "colour"),
		connectP99:       desc("connect_p99_seconds", "99th percentile of the time that connecting to an instance took lately, the slowest proxy's.", "service", "colour"),
	}
}

func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	f := m.families
	for _, d := range []*prometheus.Desc{
		f.connections, f.ceiling, f.evictedTotal, f.acceptedTotal, f.returnedTotal, f.drainError, f.rolloutEvicted,
		f.outstanding, f.atLeast, f.phase, f.paused, f.waiting, f.weight, f.instances, f.departed, f.leftOut, f.discoveryError,
		f.discoverySuspect, f.proxies, f.unpublished, f.nacksTotal, f.withheld,
		f.reported, f.difference, f.colourReported, f.connectP99,
		f.rolloutLost, f.neverBack, f.pace, f.alarm, f.batch, f.gateOpen, f.capacity,
	} {
		ch <- d
	}
}

func (m metrics) Collect(ch chan<- prometheus.Metric) {
	w := sample{ch, m.families}
	for _, s := range api.LookAll(m.views(), m.now()).Services {
		w.service(s)
	}
	w.seen(m.proxies())
}

// sample writes samples of one scrape.
type sample struct {
	ch chan<- prometheus.Metric
	families
}

func (s sample) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, v, labels)
}

func (s sample) counter(d *prometheus.Desc, v *uint64, labels ...string) {
	if v != nil {
		s.send(d, prometheus.CounterValue, float64(*v), labels)
	}
}

// send reports what cannot be said as a scrape error; it must not end rolloutd.
func (s sample) send(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, t, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	s.ch <- m
}

func (s sample) service(st api.Status) {
	name := string(st.Service)
	for _, p := range api.Phases {
		s.gauge(s.phase, number(p == st.Phase), name, string(p))
	}
	s.gauge(s.paused, number(st.Paused), name)
	if st.Reason.Waiting() && st.Reason.Code != "" {
		s.gauge(s.waiting, 1, name, string(st.Reason.Code))
	}
	s.gauge(s.leftOut, float64(len(st.LeftOut)), name)
	s.gauge(s.discoveryError, number(st.Discovery.Error != ""), name)
	s.gauge(s.discoverySuspect, number(st.Discovery.Suspect != ""), name)
	s.gauge(s.unpublished, number(st.Proxies.Unpublished != ""), name)
	s.gauge(s.proxies, float64(st.Proxies.Connected), name, "connected")
	s.gauge(s.proxies, float64(st.Proxies.Confirmed), name, "confirmed")
	if r := st.Rollout; r != nil {
		s.rollout(name, *r)
	}
	for _, c := range st.Colours {
		s.gauge(s.weight, float64(c.Weight)/float64(units.Whole), name, string(c.Colour))
		s.maybe(s.colourReported, c.Reported, name, string(c.Colour))
		if c.ConnectP99 > 0 {
			s.gauge(s.connectP99, c.ConnectP99.D().Seconds(), name, string(c.Colour))
		}
		if c.Room != nil {
			s.gauge(s.capacity, float64(c.Room.Capacity), name, string(c.Colour))
		}
	}
	s.fleet(st)
}

func (s sample) rollout(name string, r api.Rollout) {
	s.gauge(s.rolloutEvicted, float64(r.Evicted), name)
	s.gauge(s.rolloutLost, float64(r.Lost), name)
	if r.Outstanding != nil {
		s.gauge(s.outstanding, float64(*r.Outstanding), name)
	}
	s.gauge(s.atLeast, float64(r.AtLeast), name)
	if r.NeverBack != nil {
		s.gauge(s.neverBack, float64(*r.NeverBack), name)
	}
	s.gauge(s.pace, float64(r.Pace.Close), name)
	s.gauge(s.alarm, number(r.Alarm != ""), name)
	s.gauge(s.batch, float64(r.Batch), name)
	for _, g := range r.Gates {
		if g.Open != nil {
			s.gauge(s.gateOpen, number(*g.Open), name, g.Name)
		}
	}
}

func (s sample) fleet(st api.Status) {
	name := string(st.Service)
	type side struct {
		colour discovery.Colour
		health discovery.Health
	}
	count, gone := map[side]int{}, map[discovery.Colour]int{}
	// An id that another address took over is several instances for a while; the
	// departed ones are told apart by their address.
	same := map[discovery.InstanceID]int{}
	for _, i := range st.Instances {
		same[i.ID]++
	}
	for _, i := range st.Instances {
		id := string(i.ID)
		if i.Departed {
			gone[i.Colour]++
			if same[i.ID] > 1 {
				id += "@" + i.Addr.String()
			}
		} else {
			count[side{i.Colour, i.Health}]++
		}
		labels := []string{name, string(i.Colour), id, i.Node}
		s.maybe(s.connections, i.Held, labels...)
		s.maybe(s.ceiling, i.Ceiling, labels...)
		s.counter(s.evictedTotal, i.Evicted, labels...)
		s.counter(s.acceptedTotal, i.Accepted, labels...)
		s.counter(s.returnedTotal, i.Returned, labels...)
		s.gauge(s.drainError, number(i.Error != ""), labels...)
		s.proxied(i, labels)
	}
	for _, c := range discovery.Colours {
		s.gauge(s.departed, float64(gone[c]), name, string(c))
		for _, h := range []discovery.Health{discovery.Passing, discovery.Warning, discovery.Critical, discovery.Maintenance} {
			s.gauge(s.instances, float64(count[side{c, h}]), name, string(c), string(h))
		}
	}
}

// proxied is what the proxies report of an instance.
func (s sample) proxied(i api.Instance, labels []string) {
	if i.Reported == nil {
		return
	}
	s.gauge(s.reported, float64(i.Reported.Held), labels...)
	if d := i.Differs; d != nil {
		s.gauge(s.difference, float64(d.Said-d.Reported), labels...)
	} else if i.State != "" {
		s.gauge(s.difference, 0, labels...)
	}
}

func (s sample) seen(all []api.Proxy) {
	for _, p := range all {
		s.counter(s.nacksTotal, &p.NackCount, p.Node)
		s.gauge(s.withheld, float64(len(p.Withheld)), p.Node)
	}
}

func (s sample) maybe(d *prometheus.Desc, v *int, labels ...string) {
	if v != nil {
		s.gauge(d, float64(*v), labels...)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
