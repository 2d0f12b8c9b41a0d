package edge

import (
	"reflect"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
)

// Settle returns next as far as it can be built: a service or listener at fault is
// as last has it, or left out where last does not have it. Of a listener of last what is
// written stays as it is, whatever next says, since it is written once. The faults are by
// the services that are not as next wants them: the first one that was found, in
// the words and keys of next. With a last that was settled itself, what is
// returned breaks no rule. Pure.
func Settle(next, last Config) (Config, map[discovery.Service]Fault) {
	out := Config{Listeners: slices.Clone(next.Listeners), Services: slices.Clone(next.Services)}
	for _, node := range next.Leaving {
		if isNode(node) {
			out.Leaving = append(out.Leaving, node)
		}
	}
	kept := map[int]Listener{}
	for _, l := range last.Listeners {
		i := slices.IndexFunc(out.Listeners, func(n Listener) bool { return n.Name == l.Name })
		if i < 0 {
			i, out.Listeners = len(out.Listeners), append(out.Listeners, l)
		}
		if n := out.Listeners[i]; reflect.DeepEqual(n.Written(), l.Written()) {
			out.Listeners[i].Protocol = l.Protocol
		} else {
			out.Listeners[i] = l
		}
		kept[i] = l
	}
	d := &settling{Config: out, last: last, kept: kept, left: absent{map[int]bool{}, map[int]bool{}}, faults: map[discovery.Service]Fault{}}
	for slices.ContainsFunc(d.check(d.left), d.yield) {
		// One at a time: what follows from a fault may end with it.
	}
	return d.rest(), d.faults
}

// settling is one pass of Settle.
type settling struct {
	Config
	last   Config
	kept   map[int]Listener // of last
	left   absent
	faults map[discovery.Service]Fault
}

// yield takes back what is at fault, and reports whether there was anything to
// take back.
func (d *settling) yield(f Fault) bool {
	changed := false
	for i, s := range d.Services {
		was, twin := d.last.service(s.Name), d.twin(i)
		if d.left.services[i] || !slices.Contains(f.Services, s.Name) || was != nil && !twin && reflect.DeepEqual(*was, s) {
			continue
		}
		if was == nil || twin {
			d.left.services[i] = true
		} else {
			d.Services[i] = *was
		}
		if _, known := d.faults[s.Name]; !known {
			d.faults[s.Name] = f
		}
		changed = true
	}
	for i, l := range d.Listeners {
		was, kept := d.kept[i]
		switch {
		case d.left.listeners[i] || !slices.Contains(f.Listeners, l.Name):
		case !kept:
			d.left.listeners[i], changed = true, true
		case !reflect.DeepEqual(l, was):
			d.Listeners[i], changed = was, true
		}
	}
	return changed
}

// twin reports whether a service before the i-th has its name.
func (d *settling) twin(i int) bool {
	for j, s := range d.Services[:i] {
		if !d.left.services[j] && s.Name == d.Services[i].Name {
			return true
		}
	}
	return false
}

// rest is what is not left out. Each listener has the protocol that it will keep:
// that of its services, also when all of them are left out.
func (d *settling) rest() Config {
	out := Config{Leaving: d.Leaving}
	for i, s := range d.Services {
		if !d.left.services[i] {
			out.Services = append(out.Services, s)
		}
	}
	for i, l := range d.Listeners {
		if d.left.listeners[i] {
			continue
		}
		from := d.Config
		if slices.ContainsFunc(out.Services, func(s Service) bool { return s.Listener == l.Name }) {
			from = out
		}
		l.Protocol = from.Carries(l)
		out.Listeners = append(out.Listeners, l)
	}
	return out
}

func (c Config) service(name discovery.Service) *Service {
	i := slices.IndexFunc(c.Services, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Services[i]
}
