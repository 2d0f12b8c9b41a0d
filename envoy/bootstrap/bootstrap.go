// Package bootstrap prints the configuration file that an Envoy starts with. It
// imports the standard library only, so that rolloutctl starts quickly.
package bootstrap

import (
	"cmp"
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// DrainTime and ParentShutdownTime are the flags, in seconds, that every Envoy
// has to be started with. Envoy ends established connections DrainTime after
// their listener was changed or removed: with a week, such an accident is an
// alert and no outage. ParentShutdownTime must be longer.
const (
	DrainTime          = 604800
	ParentShutdownTime = 691200
)

// Flags are those two as command-line arguments.
func Flags() []string {
	return []string{
		"--drain-time-s", strconv.Itoa(DrainTime),
		"--parent-shutdown-time-s", strconv.Itoa(ParentShutdownTime),
	}
}

// Cluster is the one cluster that an Envoy has of its own: the way to rolloutd.
const Cluster = "sluice_xds"

// Options describe one Envoy.
type Options struct {
	// Node is the Envoy's name, unique among all that one rolloutd serves.
	Node string
	// Cluster is the group it belongs to, free text. Default "edge".
	Cluster string
	// XDS is where rolloutd serves xDS, as host:port; a host name is resolved
	// again and again.
	XDS string
	// Admin is where Envoy's own admin interface listens. It can end Envoy and
	// has no password, so keep it on loopback. Default 127.0.0.1:9901.
	Admin netip.AddrPort
	// Concurrency is the number of worker threads; 0 is one per core.
	Concurrency int
}

//go:embed bootstrap.yaml.tmpl
var text string

var file = template.Must(template.New("bootstrap").Funcs(template.FuncMap{"quote": quote}).Parse(text))

// quote makes any text a double-quoted YAML string: Go's ASCII escapes are
// YAML's too.
func quote(s string) string { return strconv.QuoteToASCII(s) }

// Write prints a complete bootstrap in YAML, beginning with a comment that says
// how to start Envoy with it.
func Write(w io.Writer, o Options) error {
	host, port, err := net.SplitHostPort(o.XDS)
	p, bad := strconv.ParseUint(port, 10, 16)
	o.Admin = cmp.Or(o.Admin, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 9901))
	o.Cluster = cmp.Or(o.Cluster, "edge")
	switch {
	case o.Node == "" || !plain(o.Node):
		return fmt.Errorf("node %q: name the Envoy in printable text, such as edge-1", o.Node)
	case !plain(o.Cluster):
		return fmt.Errorf("cluster %q: name the group in printable text, such as edge", o.Cluster)
	case err != nil || bad != nil || p == 0 || host == "" || !plain(host):
		return fmt.Errorf("xDS address %q: give the host and port of rolloutd, such as 10.0.0.2:18000", o.XDS)
	case o.Concurrency < 0:
		return fmt.Errorf("concurrency is %d; it must be 0 or more", o.Concurrency)
	}
	kind := "STRICT_DNS"
	if _, err := netip.ParseAddr(host); err == nil {
		kind = "STATIC"
	}
	local := strings.EqualFold(host, "localhost")
	if local {
		kind = "LOGICAL_DNS" // one host with several addresses, of which the first that answers is taken
	}
	flags := Flags()
	if o.Concurrency > 0 {
		flags = append(flags, "--concurrency", strconv.Itoa(o.Concurrency))
	}
	return file.Execute(w, map[string]any{
		"Node": o.Node, "Cluster": o.Cluster, "Kind": kind, "Both": local, "Host": host, "Port": p,
		"AdminHost": o.Admin.Addr().String(), "AdminPort": o.Admin.Port(), "Flags": strings.Join(flags, " "),
	})
}

func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
