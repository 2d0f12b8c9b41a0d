//go:build unix

package sidecar

import (
	"iter"
	"os"
	"sync"
	"syscall"
)

// buffers are for one read: small ones, and large ones for a connection whose
// last read filled its buffer. A large one makes the way of a stream as cheap as
// the kernel's splice.
var buffers = [2]sync.Pool{
	{New: func() any { return new(make([]byte, 32<<10)) }},
	{New: func() any { return new(make([]byte, 256<<10)) }},
}

// chunks yields what c receives, each piece valid until the next, and ends at its
// FIN; an error is the last that it yields. A buffer is held only while there is
// something in it: an idle connection has none.
func chunks(c conn) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		raw, err := c.SyscallConn()
		if err != nil {
			yield(nil, err)
			return
		}
		var r reading
		try := r.try
		for {
			if err := raw.Read(try); err != nil {
				yield(nil, err)
				return
			}
			switch {
			case r.err != nil:
				yield(nil, os.NewSyscallError("read", r.err))
			case r.n > 0 && yield((*r.buffer)[:r.n], nil):
				r.release()
				continue
			}
			r.release()
			return
		}
	}
}

// reading is one read, and which buffer the next one takes.
type reading struct {
	pool   int
	buffer *[]byte
	n      int
	err    error
}

// try reads, or gives the buffer back and has the runtime wait until there is
// something to read.
func (r *reading) try(fd uintptr) (done bool) {
	r.buffer = buffers[r.pool].Get().(*[]byte)
	for {
		switch r.n, r.err = syscall.Read(int(fd), *r.buffer); r.err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			buffers[r.pool].Put(r.buffer)
			r.buffer, r.pool = nil, 0
			return false
		default:
			return true
		}
	}
}

func (r *reading) release() {
	buffers[r.pool].Put(r.buffer)
	if r.n == len(*r.buffer) {
		r.pool = 1
	}
	r.buffer = nil
}
