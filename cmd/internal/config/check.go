package config

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// check reports every rule that the completed configuration breaks. Values that
// could not be read hold their defaults, and their problem is known already.
func (r *reading) check(c *Config) {
	r.checkDiscovery(c.Discovery)
	r.checkState(c.State)
	r.checkAddresses(c)
	r.checkOutside(c)
	r.checkListeners(c.Listeners)
	r.checkServices(c)
}

func (r *reading) checkDiscovery(d Discovery) {
	switch {
	case d.File == "" && d.Consul == nil:
		r.refuse("discovery", "is missing; name file or consul")
	case d.File != "" && d.Consul != nil:
		r.refuse("discovery", "has both file and consul; use one")
	case d.File != "":
		if _, err := os.Stat(d.File); err != nil {
			r.note("discovery.file", "%v; rolloutd is not ready before it is there", err)
		}
	}
	if d.Consul == nil {
		return
	}
	r.checkConsulAddress("discovery.consul.address", d.Consul.Address)
	switch tags := d.Consul.Tags; {
	case tags.Blue == "" || tags.Green == "":
		r.refuse("discovery.consul.tags", "a tag is empty; each colour needs one")
	case tags.Blue == tags.Green:
		r.refuse("discovery.consul.tags", "both are %q; each colour needs its own", tags.Blue)
	}
}

func (r *reading) checkState(s State) {
	if s.File != "" && s.Consul != nil {
		r.refuse("state", "has both file and consul; use one")
	}
	if s.Consul == nil {
		return
	}
	r.checkConsulAddress("state.consul.address", s.Consul.Address)
	if p := s.Consul.Prefix; p == "" || strings.Trim(p, "/") != p {
		r.refuse("state.consul.prefix", "is %q; write it without slashes at its ends, such as sluice", p)
	}
}

func (r *reading) checkConsulAddress(key, address string) {
	full := address
	if !strings.Contains(address, "://") {
		full = "http://" + address
	}
	u, err := url.Parse(full)
	ok := err == nil && (u.Scheme == "unix" && u.Path != "" ||
		(u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && (u.Path == "" || u.Path == "/") && u.User == nil && u.RawQuery == "")
	if !ok || full != address && u.Port() == "" {
		r.refuse(key, "%q is no address of Consul; write host:port, http://host:port or https://host:port", address)
	}
}

func (r *reading) checkAddresses(c *Config) {
	if !c.API.Listen.Addr().IsLoopback() && c.API.TokenFile == "" {
		r.refuse("api.token_file", "is missing; %s can be reached from other machines, so requests must show a token", c.API.Listen)
	}
	if !c.XDS.Listen.Addr().IsLoopback() {
		r.note("xds.listen", "%s can be reached from other machines and asks nobody who they are; keep it in a trusted network", c.XDS.Listen)
	}
	seen := map[string]string{}
	for i, replica := range c.Replicas {
		key := fmt.Sprintf("replicas[%d]", i)
		r.checkURL(key, replica)
		r.checkUnique(key, replica, seen)
	}
	if c.XDS.Listen == c.API.Listen && c.XDS.Listen.Port() != 0 {
		r.refuse("api.listen", "%s is xds.listen too; each needs its own", c.API.Listen)
	}
}

func (r *reading) checkListeners(listeners []Listener) {
	if len(listeners) == 0 {
		r.refuse("listeners", "is missing; there must be at least one")
	}
	names, addresses := map[string]string{}, map[string]string{}
	for i, l := range listeners {
		key := fmt.Sprintf("listeners[%d]", i)
		r.checkName(key+".name", l.Name)
		r.checkUnique(key+".name", l.Name, names)
		switch a := l.Address; {
		case !a.IsValid():
			r.refuse(key+".address", "is missing; write IP:port, such as 0.0.0.0:8080")
		case a.Port() == 0:
			r.refuse(key+".address", "%s has port 0; clients need a fixed one", a)
		case a.Addr().Zone() != "":
			r.refuse(key+".address", "%s has a zone, which Envoy does not take", a)
		default:
			r.checkUnique(key+".address", a.String(), addresses)
		}
		if l.TLS != nil {
			r.checkPath(key+".tls.certificate", l.TLS.Certificate)
			r.checkPath(key+".tls.key", l.TLS.Key)
		}
	}
}

// checkPath looks at a path that Envoy opens, perhaps on another machine.
func (r *reading) checkPath(key, path string) {
	switch {
	case path == "":
		r.refuse(key, "is missing; tls needs certificate and key")
	case !filepath.IsAbs(path):
		r.refuse(key, "%q is relative; Envoy reads it, so it must be absolute", path)
	default:
		if _, err := os.Stat(path); err != nil {
			r.note(key, "%v; every Envoy must have it", err)
		}
	}
}

// checkName allows what can stand in names of Envoy's clusters and statistics,
// in Consul's keys and in file names.
func (r *reading) checkName(key, name string) {
	inner := func(c rune) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' }
	odd := strings.ContainsFunc(name, func(c rune) bool { return !inner(c) })
	switch {
	case name == "":
		r.refuse(key, "is missing")
	case odd || strings.Trim(name, "-") != name || len(name) > 63:
		r.refuse(key, "%q is no name; use at most 63 lower-case letters, digits and inner dashes", name)
	}
}

// checkUnique reports whether key is the first to have this value; seen maps
// values to their keys.
func (r *reading) checkUnique(key, value string, seen map[string]string) bool {
	if first, twice := seen[value]; twice && value != "" {
		r.refuse(key, "%s stands at %s already", value, first)
		return false
	}
	seen[value] = key
	return true
}

func (r *reading) checkPolicy(key string, p rollout.Policy) {
	bad := p.Check()
	if bad["funnel"] != nil {
		delete(bad, "funnel")
		// Check stops at the first of the two keys.
		if err := (units.Funnel{Close: p.Funnel.Close, Every: units.Duration(time.Second)}).Check(); err != nil {
			r.refuse(key+".funnel.close", "%v", err)
		}
		if err := (units.Funnel{Close: 1, Every: p.Funnel.Every}).Check(); err != nil {
			r.refuse(key+".funnel.every", "%v", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		r.refuse(key+"."+name, "%v", bad[name])
	}
}
