//go:build !linux

package main

import (
	"errors"
	"net"

	"github.com/sluice-proxy/sluice/sidecar"
)

const handoverFormat = "1"

type baton struct {
	Listen, Drain    uintptr
	Server, Upgrades int
	Sidecar          sidecar.Handover
}

var errLinux = errors.New("an upgrade in place works on Linux only")

func inherit() (*baton, error)                        { return nil, nil }
func inheritedListener(uintptr) (net.Listener, error) { return nil, errLinux }
func (r *running) upgrade() error                     { return errLinux }
