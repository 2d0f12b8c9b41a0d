package envoy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-proxy/sluice/discovery"
)

// ClusterName is the name of the permanent cluster, and of the endpoints, of one
// colour of a service: "chat-blue". Two services never share one.
func ClusterName(s discovery.Service, c discovery.Colour) string {
	return escape(string(s)) + "-" + string(c)
}

// escape maps any name to [a-z0-9_-], different names to different ones: the
// result stands in stats and runtime keys, where a dot would be a separator.
// "_" is written twice, every other foreign byte as _ and two hex digits.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-':
			b.WriteByte(c)
		case c == '_':
			b.WriteString("__")
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// unmapped writes an IPv4 address in IPv6 clothes as IPv4.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
