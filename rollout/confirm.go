package rollout

import (
	"fmt"
	"slices"
	"time"
)

func (d *decider) confirm() Reason {
	to := d.s.Rollout.To
	d.enter(Confirming, fmt.Sprintf("all new connections to %s", to))
	return reason(Unconfirmed, "waiting: the proxies are told to send new connections to %s", to)
}

// confirming waits until nobody sends new connections to the old side.
func (d *decider) confirming() Reason {
	if why, ok := d.confirmed(); !ok {
		if !d.s.Rollout.Settled.IsZero() {
			d.touch()
			d.s.Rollout.Settled = time.Time{}
		}
		return why
	}
	if d.s.Rollout.Settled.IsZero() {
		d.settled()
	}
	r := d.s.Rollout
	if end := r.Settled.Add(settle); d.now.Before(end) {
		d.wakeBy(end)
		return reason(Settling, "waiting: handshakes that were under way when the last proxy confirmed may still end on %s", r.From)
	}
	d.enter(Draining, fmt.Sprintf("every proxy sends new connections to %s; %s refuses new ones", r.To, r.From))
	return reason(GateOpen, "waiting: %s instances are told to refuse new connections", r.From)
}

// confirmed reports whether every known proxy has acknowledged what is
// published. A proxy that vanished is waited for, then named and left behind.
func (d *decider) confirmed() (Reason, bool) {
	if d.seen.Unpublished != "" {
		return d.wait(reason(Unpublished, "waiting: the proxies were not told: %s", d.seen.Unpublished)), false
	}
	r := d.s.Rollout
	var behind []string
	for _, p := range d.seen.Proxies {
		switch {
		case p.Connected && p.Nack != "":
			return d.wait(reason(Nacked, "waiting: proxy %s refused its configuration (%s); mend the cause, then restart that Envoy", p.Node, p.Nack)), false
		case p.Connected && !p.Confirmed:
			behind = append(behind, p.Node)
		}
	}
	if len(behind) > 0 {
		return d.wait(reason(Unconfirmed, "waiting: %s not acknowledged yet: %s", counted(len(behind), "proxy has", "proxies have"), names(behind))), false
	}
	for _, node := range d.s.Proxies {
		i := slices.IndexFunc(d.seen.Proxies, func(p Proxy) bool { return p.Node == node })
		from := latest(r.Since, d.seen.Watching)
		if i >= 0 {
			if d.seen.Proxies[i].Connected {
				continue
			}
			from = latest(from, d.seen.Proxies[i].Lost)
		}
		if end := from.Add(proxyPatience); d.now.Before(end) {
			d.wakeBy(end)
			return d.wait(reason(Unconfirmed, "waiting: proxy %s is not connected; it is left behind at %s", node, clock(end))), false
		}
		d.touch()
		d.s.Proxies = slices.DeleteFunc(d.s.Proxies, func(n string) bool { return n == node })
		d.s.Rollout.LeftBehind = append(d.s.Rollout.LeftBehind, "proxy "+node)
		d.s.Rollout.note(d.now, "proxy "+node+" is not connected and was left behind")
		d.wake = d.now
		return reason(Unconfirmed, "proxy %s is left behind", node), false
	}
	return Reason{}, true
}

// targetWell reports whether the side that takes over can be sent clients.
func (d *decider) targetWell() (Reason, bool) {
	r := d.s.Rollout
	if d.seen.Fleet.Err != "" {
		return d.wait(reason(StaleDiscovery, "waiting: %s", d.seen.Fleet.Err)), false
	}
	if d.seen.Fleet.Suspect != "" {
		return d.wait(reason(StaleDiscovery, "waiting: %s", d.seen.Fleet.Suspect)), false
	}
	for _, key := range d.news() {
		m := d.s.Members[key]
		if in, ok := d.instance(key, m); ok && !in.Health.Serves() {
			return d.wait(reason(TargetSick, "waiting: %s instance %s is %s; deregister it to go on without it", r.To, key, in.Health)), false
		} else if sight := d.seen.Instances[key]; ok && m.Counted && sight.Refused {
			// Its process is gone, and no health check has noticed yet.
			return d.wait(reason(TargetSick, "waiting: %s instance %s answers no more (%s); bring it back, or deregister it to go on without it", r.To, key, sight.Err)), false
		}
	}
	if len(d.open(r.To)) == 0 {
		return d.wait(reason(TargetSick, "waiting: %s has no healthy instance that takes new connections; start some, or abort", r.To)), false
	}
	return Reason{}, true
}
