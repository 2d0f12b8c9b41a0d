package sidecar

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Who is there. A connection that lasts is held by the gate: a WebSocket, an event
// stream, bytes of another protocol, a response that runs longer than Options.Long.
// A request and its response are counted while they are under way. A connection
// on which nothing is under way is nobody.

// admit asks the gate to hold the link from now on.
func (l *link) admit() error {
	held, err := l.car.AdmitFrom(l.client.RemoteAddr(), l.leave)
	if err == nil {
		l.hold(held)
	}
	return err
}

func (l *link) hold(c *drain.Conn) {
	if !l.held.CompareAndSwap(nil, c) {
		c.Done() // it is held already
	}
}

func (l *link) active() {
	if held := l.held.Load(); held != nil {
		held.Active()
	}
}

// begin counts the request that begins; false if it is refused.
func (l *link) begin() bool {
	if err := l.car.Refuses(l.client.RemoteAddr()); err != nil {
		l.talk.refuseRequest()
		l.down.Lock()
		l.refusal = err
		l.down.Unlock()
		time.AfterFunc(headWait, func() {
			if l.talk.resting() {
				l.hangUp()
			}
		})
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy && !l.ended {
		l.busy, l.since = true, time.Now()
		l.car.requests.count(l.client.RemoteAddr(), 1)
	}
	if l.long == nil {
		l.long = time.AfterFunc(l.car.opt.Long, l.lasts)
	} else {
		l.long.Reset(l.car.opt.Long)
	}
	return true
}

// lasts: what is under way has run so long that it is held as a connection.
func (l *link) lasts() {
	l.mu.Lock()
	ended := l.ended
	l.mu.Unlock()
	if ended || l.held.Load() != nil || !l.talk.lasts() {
		return
	}
	l.hold(l.car.AdmitLate(drain.Hooks{Close: l.leave, Remote: l.client.RemoteAddr()}))
	l.idle()
	if l.talk.resting() { // it has ended meanwhile
		l.rest()
	}
}

// idle: no request is under way that is counted as one.
func (l *link) idle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy {
		l.busy = false
		l.car.requests.count(l.client.RemoteAddr(), -1)
		l.car.look()
	}
	if l.long != nil {
		l.long.Stop()
		l.long = nil
	}
}

// rest: nothing is under way, it is nobody.
func (l *link) rest() {
	l.idle()
	if held := l.held.Swap(nil); held != nil {
		held.Done()
	}
}

// leaves notes that the link is told to leave; false if it was before, or is gone.
func (l *link) leaves() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.leaving.Load() {
		return false
	}
	l.leaving.Store(true)
	return true
}

// end: the link is gone.
func (l *link) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.rest()
}

// underWay is requests that are under way and not held as connections, by the machine
// that they came from.
type underWay struct {
	mu sync.Mutex
	n  int
	by map[string]int
}

func (u *underWay) count(remote net.Addr, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.by == nil {
		u.by = map[string]int{}
	}
	from := contract.OtherPeers
	if a, err := netip.ParseAddrPort(remote.String()); err == nil {
		from = a.Addr().Unmap().WithZone("").String()
	}
	u.n += n
	if u.by[from] += n; u.by[from] == 0 {
		delete(u.by, from)
	}
}

// in adds them to what the gate says.
func (u *underWay) in(status *contract.Status) {
	u.mu.Lock()
	defer u.mu.Unlock()
	status.Requests += u.n
	if status.Peers == nil {
		return
	}
	for from, n := range u.by {
		if _, known := status.Peers[from]; !known && len(status.Peers) >= contract.MaxPeers {
			from = contract.OtherPeers
		}
		p := status.Peers[from]
		p.Held += n
		status.Peers[from] = p
	}
}
