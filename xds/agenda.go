package xds

import (
	"math/bits"
	"slices"
)

// agenda is the names of one type that are still to be looked at for one proxy, in order.
// The entries' marks queued and waiting say the same. The peer's mutex guards it.
type agenda struct {
	names   *inventory
	queue   []string // names to look at, without repetition
	waiting []string // to be looked at again after an acknowledgement, without repetition
}

// add has the name looked at.
func (a *agenda) add(name string) {
	if e := a.names.ensure(name); !e.queued {
		e.queued = true
		a.queue = append(a.queue, name)
	}
}

// ask has the name answered, whatever the proxy holds or refused.
func (a *agenda) ask(name string) {
	e := a.names.ensure(name)
	e.asked, e.refused = true, nil
	a.add(name)
}

// first is the name to look at next, with its entry. The queue is not empty.
func (a *agenda) first() (string, *entry) { return a.queue[0], a.names.byName[a.queue[0]] }

// shift takes the first name off, whose entry is e.
func (a *agenda) shift(e *entry) {
	e.queued = false
	a.queue = a.queue[1:]
	if len(a.queue) == 0 {
		a.queue = nil
	}
}

// skip takes the first name off, to be put back.
func (a *agenda) skip() string {
	name := a.queue[0]
	a.queue = a.queue[1:]
	return name
}

// turn has the queue begin at that part of it, of 2^64.
func (a *agenda) turn(part uint64) {
	at, _ := bits.Mul64(part, uint64(len(a.queue)))
	a.queue = slices.Concat(a.queue[at:], a.queue[:at])
}

// wait has the name looked at again after an acknowledgement.
func (a *agenda) wait(name string, e *entry) {
	if !e.waiting {
		e.waiting = true
		a.waiting = append(a.waiting, name)
	}
}

// retry has everything that waits looked at again.
func (a *agenda) retry() {
	if len(a.waiting) == 0 {
		return
	}
	slices.Sort(a.waiting)
	for _, name := range a.waiting {
		a.names.ensure(name).waiting = false
		a.add(name)
	}
	a.waiting = a.waiting[:0]
}
