package edge

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// domain says why Envoy would not match a Host header against d, which is in
// lower case; empty when it does. Envoy takes the port off the header first.
func domain(d string) string {
	if _, _, err := net.SplitHostPort(d); err == nil {
		return fmt.Sprintf("leave the port out of %q; any port matches", d)
	}
	name := strings.TrimPrefix(d, "*")
	if name == d {
		name = strings.TrimSuffix(d, "*")
	}
	odd := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')
	}
	if d == "*" || address6(d) || name != "" && len(name) <= 255 && !strings.ContainsFunc(name, odd) {
		return ""
	}
	return fmt.Sprintf("%q is no domain; write chat.example.com, *.example.com, chat.* or *", d)
}

// address6 reports whether a domain is an IPv6 address as it stands in a Host
// header: in brackets.
func address6(d string) bool {
	inner, open := strings.CutPrefix(d, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	ip, err := netip.ParseAddr(inner)
	return open && closed && err == nil && ip.Is6() && ip.Zone() == ""
}

// prefix says why no path that Envoy sees would begin with p; empty when some do.
// Envoy looks at a path after it has taken . and .. out of it, has decoded what
// need not be encoded and has encoded what must be.
func prefix(p string) string {
	if p == "" {
		return ""
	}
	if p[0] != '/' || strings.ContainsAny(p, "?# \t\r\n\x00") {
		return fmt.Sprintf("%q is no prefix of a path; it starts with / and has no query", p)
	}
	for rest := p; rest != ""; rest = rest[1:] {
		c := rest[0]
		switch {
		case c == '%':
			decoded, err := strconv.ParseUint(rest[1:min(3, len(rest))], 16, 8)
			switch {
			case err != nil || len(rest) < 3:
				return fmt.Sprintf("%q has a %% that encodes nothing; write %%25 for a %%", p)
			case unreserved(byte(decoded)):
				return fmt.Sprintf("%q encodes %q, which Envoy decodes before it compares; write %q", p, rest[:3], rune(decoded))
			case decoded == 0:
				return fmt.Sprintf("%q encodes a zero byte, which Envoy refuses in a path; remove it", p)
			}
		case !unreserved(c) && !strings.ContainsRune("/!$&'()*+,;=:@[]", rune(c)):
			_, size := utf8.DecodeRuneInString(rest)
			return fmt.Sprintf("%q has %q, which clients send encoded; write %s", p, rest[:size], url.PathEscape(rest[:size]))
		}
	}
	for _, dots := range []string{".", ".."} {
		if slices.Contains(strings.Split(p, "/"), dots) {
			return fmt.Sprintf("%q has a segment %s, which Envoy takes out of a path before it compares; write the path without it", p, dots)
		}
	}
	return ""
}

// unreserved are the characters that mean the same encoded or not (RFC 3986, 2.3).
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}
