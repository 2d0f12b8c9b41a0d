package config

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// check reports every rule that the completed configuration breaks. Values that
// could not be read hold their defaults, and their problem is known already.
func (r *reading) check(c *Config) {
	r.checkDiscovery(c.Discovery)
	r.checkState(c.State)
	r.checkAddresses(c)
	r.checkOutside(c)
	r.checkEdge(c)
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

// checkEdge holds against the rules what Envoy hears of, and notes what may be
// missing on this machine.
func (r *reading) checkEdge(c *Config) {
	for _, f := range c.Edge().Check() {
		r.refuse(f.Key, "%s", f.Text)
	}
	for i, l := range c.Listeners {
		if l.TLS == nil {
			continue
		}
		key := fmt.Sprintf("listeners[%d].tls", i)
		r.noteMissing(key+".certificate", l.TLS.Certificate)
		r.noteMissing(key+".key", l.TLS.Key)
		for j, p := range l.TLS.More {
			r.noteMissing(fmt.Sprintf("%s.more[%d].certificate", key, j), p.Certificate)
			r.noteMissing(fmt.Sprintf("%s.more[%d].key", key, j), p.Key)
		}
		if l.TLS.ClientCA != "" {
			r.noteMissing(key+".client_ca", l.TLS.ClientCA)
		}
	}
	for i, s := range c.Services {
		at := slices.IndexFunc(c.Listeners, func(l edge.Listener) bool { return l.Name == s.Listener })
		if s.HTTP2 && at >= 0 && !c.Listeners[at].HTTP1WebSockets {
			r.note(fmt.Sprintf("services[%d].http2", i), "listener %s lets browsers open WebSockets over HTTP/2, and the instances of %s would be asked for them in HTTP/2 (RFC 8441), which few servers can; if there are any, set http1_websockets: true on a listener that no Envoy has yet", s.Listener, s.Name)
		}
	}
}

func (r *reading) noteMissing(key, path string) {
	if _, err := os.Stat(path); err != nil {
		r.note(key, "%v; every Envoy must have it", err)
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

func (r *reading) checkPolicy(key string, p policy.Policy) {
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
