// Package processtest is for tests only: it tells connections in memory apart as TCP does.
package processtest

import (
	"net"
	"net/netip"
	"sync/atomic"
)

// Ports gives each connection that it accepts a port of its own on one machine.
type Ports struct {
	net.Listener
	last atomic.Uint32
}

// Accept waits for the next connection.
func (l *Ports) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{c, uint16(l.last.Add(1))}, nil
}

type conn struct {
	net.Conn
	port uint16
}

func (c conn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), 40_000+c.port))
}
