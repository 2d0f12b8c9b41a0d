//go:build unix

package sidecar

import (
	"iter"
	"net"
	"os"
	"sync"
	"syscall"
)

const chunk = 256 << 10

var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// chunks yields what c receives, each piece valid until the next, and ends at its
// FIN; an error is the last that it yields. A buffer is held only while there is
// something in it: an idle connection has none.
func chunks(c *net.TCPConn) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		raw, err := c.SyscallConn()
		if err != nil {
			yield(nil, err)
			return
		}
		var b *[chunk]byte
		var n int
		var failed error
		try := func(fd uintptr) (done bool) {
			b = buffers.Get().(*[chunk]byte)
			for {
				switch n, failed = syscall.Read(int(fd), b[:]); failed {
				case syscall.EINTR:
				case syscall.EAGAIN: // wait until it is readable
					buffers.Put(b)
					return false
				default:
					return true
				}
			}
		}
		for {
			if err := raw.Read(try); err != nil {
				yield(nil, err)
				return
			}
			goOn := n > 0
			if failed != nil {
				yield(nil, os.NewSyscallError("read", failed))
				goOn = false
			} else if n > 0 {
				goOn = yield(b[:n], nil)
			}
			buffers.Put(b)
			if !goOn {
				return
			}
		}
	}
}
