package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Registration is one instance as a registry or a file spells it, not yet known
// to be usable.
type Registration struct {
	ID InstanceID
	// Node is the machine that registered it; empty where the registry has none.
	Node   string
	Colour Colour
	// Unfit says why it cannot be used whatever the rest says; empty when it can.
	Unfit   string
	Address string
	Port    int
	Health  Health
	// Drain is "10.0.0.5:9002", ":9002" or "9002" (the instance's own host), or
	// an http(s) URL; empty or Hook when it has no drain endpoint.
	Drain string
	// Capacity is a whole number above 0; empty when not declared.
	Capacity string
	// KillAfter is a duration such as 90s; empty when not declared.
	KillAfter string
	Version   string
	// Ignored says what of the registration is not used, in plain words; empty when
	// all is.
	Ignored string
}

// Hook as a drain address says that the policy's hook ends the instance.
const Hook = "hook"

// NewFleet sorts registrations into those that are used and those left out: the
// unfit, those whose address is no IP address with a port, and all but the first
// of those with the same id. A drain address or a capacity that cannot be read
// counts as not declared, with a Note. The same registrations in any order give
// the same Fleet.
func NewFleet(registrations []Registration) Fleet {
	sorted := slices.SortedFunc(slices.Values(registrations), compare)
	f := Fleet{Instances: []Instance{}}
	used := map[InstanceID]bool{}
	nodes := map[InstanceID]string{}
	several := map[InstanceID]bool{}
	for _, r := range sorted {
		if node, ok := nodes[r.ID]; ok && node != r.Node {
			several[r.ID] = true
		}
		nodes[r.ID] = r.Node
	}
	for _, r := range sorted {
		if several[r.ID] && r.Node != "" {
			r.ID = AtNode(r.ID, r.Node)
		}
		addr, err := r.addr()
		switch {
		case r.ID == "":
			err = fmt.Errorf("it has no id; give it one")
		case r.Unfit != "":
			err = fmt.Errorf("%s", r.Unfit)
		case used[r.ID]:
			err = fmt.Errorf("another registration has the same id; give each its own")
		}
		if err != nil {
			f.LeftOut = append(f.LeftOut, LeftOut{ID: r.ID, Reason: err.Error()})
			continue
		}
		used[r.ID] = true
		note := func(err error) { f.Notes = append(f.Notes, Note{ID: r.ID, Text: err.Error()}) }
		i := Instance{ID: r.ID, Node: r.Node, Colour: r.Colour, Addr: addr, Health: r.Health, Version: r.Version}
		if i.Drain, err = drainURL(r.Drain, addr.Addr()); err != nil {
			note(err)
		}
		if i.Capacity, err = capacity(r.Capacity); err != nil {
			note(err)
		}
		if i.KillAfter, err = killAfter(r.KillAfter); err != nil {
			note(err)
		}
		if r.Ignored != "" {
			note(errors.New(r.Ignored))
		}
		f.Instances = append(f.Instances, i)
	}
	slices.SortFunc(f.Instances, byID)
	f.Twins = FindTwins(f.Instances)
	return f
}

func byID(a, b Instance) int { return cmp.Compare(a.ID, b.ID) }

// compare orders registrations by id, and equal ids by all the rest.
func compare(a, b Registration) int {
	return cmp.Or(
		cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Unfit, b.Unfit), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Colour, b.Colour), cmp.Compare(a.Health, b.Health), cmp.Compare(a.Drain, b.Drain),
		cmp.Compare(a.Capacity, b.Capacity), cmp.Compare(a.KillAfter, b.KillAfter), cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.Ignored, b.Ignored))
}

// addr accepts what a proxy can connect to: host names are refused by Envoy.
func (r Registration) addr() (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(r.Address)
	switch ip = ip.Unmap(); {
	case r.Address == "":
		return netip.AddrPort{}, fmt.Errorf("it has no address; register it with an IP address")
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("its address %q is no IP address; register it with one", r.Address)
	case ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("its address %s cannot be connected to from elsewhere; register it with its own IP address", ip)
	case r.Port < 1 || r.Port > 65535:
		return netip.AddrPort{}, fmt.Errorf("its port is %d; register it with one between 1 and 65535", r.Port)
	}
	return netip.AddrPortFrom(ip, uint16(r.Port)), nil
}

// drainURL reads the address of a drain endpoint as its base URL; own is the
// instance's host.
func drainURL(s string, own netip.Addr) (string, error) {
	if s == "" || s == Hook {
		return "", nil
	}
	bad := fmt.Errorf("its drain address %q cannot be read, so it counts as having none; write it like 10.0.0.5:9002, :9002 or http://10.0.0.5:9002", s)
	if strings.Contains(s, "://") {
		u, err := url.Parse(s)
		switch {
		case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
			return "", bad
		case u.Port() != "" && !isPort(u.Port()), u.User != nil, u.RawQuery != "", u.Fragment != "":
			return "", bad
		}
		base := u.Scheme + "://" + u.Host + strings.TrimSuffix(strings.TrimRight(u.EscapedPath(), "/"), "/drain")
		return strings.TrimRight(base, "/"), nil
	}
	if !strings.Contains(s, ":") {
		s = ":" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || strings.ContainsAny(host, "/?#@ ") {
		return "", bad
	}
	if !isPort(port) {
		return "", bad
	}
	if ip, err := netip.ParseAddr(host); host == "" || (err == nil && ip.IsUnspecified()) {
		host = own.String()
	}
	base := "http://" + net.JoinHostPort(host, port)
	if _, err := url.Parse(base); err != nil {
		return "", bad
	}
	return base, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// What a registration can declare at most: more is a slip of the pen, and nobody has to
// calculate with it.
const (
	mostCapacity  = 100_000_000
	mostKillAfter = 30 * 24 * time.Hour
)

func capacity(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > mostCapacity {
		return 0, fmt.Errorf("its capacity %.40q is no whole number from 1 to %d, so it counts as not declared; write it like 5000", s, mostCapacity)
	}
	return n, nil
}

func killAfter(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > mostKillAfter {
		return 0, fmt.Errorf("its kill_after %.40q is no duration above 0 and of 30 days at most, so it counts as not declared; write it like 90s or 10m", s)
	}
	return d, nil
}
