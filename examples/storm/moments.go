package main

import (
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/examples/swarm/clients"
)

// letGo are the moments at which clients were let go: asked, or disconnected without that.
func (r recording) letGo() (at []time.Time) {
	told := map[int]bool{}
	for _, rec := range r.records {
		switch rec.Kind {
		case clients.Asked:
			told[rec.Client] = true
		case clients.Left:
			if told[rec.Client] {
				delete(told, rec.Client) // at the end of the notice
				continue
			}
		case clients.Ended:
			delete(told, rec.Client)
			continue
		default:
			continue
		}
		at = append(at, rec.At)
	}
	return at
}

// returns are the moments at which clients came back, or over.
func (r recording) returns() (at []time.Time) {
	known := map[int]bool{}
	for _, rec := range r.records {
		if rec.Kind == clients.Joined {
			if known[rec.Client] {
				at = append(at, rec.At)
			}
			known[rec.Client] = true
		}
	}
	return at
}

// away is how long each client had no connection, from its first one to the end, in order
// of length.
func (r recording) away() (all []time.Duration) {
	held, since, sum := map[int]int{}, map[int]time.Time{}, map[int]time.Duration{}
	for _, rec := range r.records {
		switch c := rec.Client; rec.Kind {
		case clients.Joined:
			if gone, was := since[c]; was && held[c] == 0 {
				sum[c] += rec.At.Sub(gone)
			}
			held[c]++
		case clients.Left, clients.Ended:
			held[c]--
			since[c] = rec.At
		}
	}
	for c, n := range held {
		if n == 0 && r.ended.After(since[c]) {
			sum[c] += r.ended.Sub(since[c])
		}
		all = append(all, sum[c])
	}
	slices.Sort(all)
	return all
}

// peak is the most moments in any half-open window of the given length; the
// moments are in order.
func peak(at []time.Time, window time.Duration) int {
	most, first := 0, 0
	for i, t := range at {
		for t.Sub(at[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}
