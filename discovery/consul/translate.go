package consul

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
)

// tags are the two Consul tags that say which colour an instance has.
type tags struct{ blue, green string }

// translate turns Consul's answer for one service into a Fleet. It is pure: the
// same entries in any order give the same Fleet.
func translate(entries []*api.ServiceEntry, t tags) discovery.Fleet {
	var all []discovery.Registration
	for _, e := range entries {
		if e == nil || e.Service == nil {
			all = append(all, discovery.Registration{Unfit: "Consul sent it without a service"})
			continue
		}
		all = append(all, registration(e, t))
	}
	return discovery.NewFleet(all)
}

func registration(e *api.ServiceEntry, t tags) discovery.Registration {
	s := e.Service
	r := discovery.Registration{
		ID:        discovery.InstanceID(s.ID),
		Address:   s.Address,
		Port:      s.Port,
		Health:    health(e.Checks),
		Drain:     s.Meta["drain"],
		Capacity:  s.Meta["capacity"],
		KillAfter: s.Meta["kill_after"],
		Version:   s.Meta["version"],
	}
	if w := s.Weights; w.Passing > 1 || w.Warning > 1 {
		r.Ignored = fmt.Sprintf("its weights, %d passing and %d warning, are not used: proxies share new connections evenly", w.Passing, w.Warning)
	}
	if e.Node != nil {
		r.Address, r.Node = cmp.Or(r.Address, e.Node.Address), e.Node.Node
	}
	blue, green := slices.Contains(s.Tags, t.blue), slices.Contains(s.Tags, t.green)
	switch {
	case s.Kind != api.ServiceKindTypical:
		r.Unfit = fmt.Sprintf("it is a %s of Consul's mesh and no instance; name the service behind it", s.Kind)
	case blue && green:
		r.Unfit = fmt.Sprintf("it has both tags, %s and %s; leave it one of them", t.blue, t.green)
	case blue:
		r.Colour = discovery.Blue
	case green:
		r.Colour = discovery.Green
	default:
		r.Unfit = fmt.Sprintf("it has no colour; give it the tag %s or %s", t.blue, t.green)
	}
	return r
}

// health is the worst that any check says; a state Consul may learn one day
// counts as critical, no checks at all as passing.
func health(checks api.HealthChecks) discovery.Health {
	worst := discovery.Passing
	for _, c := range checks {
		switch {
		case c == nil:
		case c.CheckID == api.NodeMaint || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix):
			return discovery.Maintenance
		case c.Status == api.HealthPassing:
		case c.Status == api.HealthWarning && worst == discovery.Passing:
			worst = discovery.Warning
		case c.Status != api.HealthWarning:
			worst = discovery.Critical
		}
	}
	return worst
}
