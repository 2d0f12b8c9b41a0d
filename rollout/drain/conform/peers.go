package conform

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// peers: four connections and a refused one come from one machine, this one.
func peers(ctx context.Context, in *instance) error {
	before, err := in.status(ctx)
	if err != nil {
		return err
	}
	return in.with(ctx, 4, func(*crowd) error {
		s, err := in.status(ctx)
		switch {
		case err != nil:
			return err
		case s.Peers == nil:
			return notChecked("it says no peers, so an Envoy that is lost is waited for until rolloutctl proxies forget")
		case !s.PeersAgree():
			return fmt.Errorf("peers hold %d in all but active, requests and lingering are %d; every connection has one peer", sum(s, held), s.Held())
		case most(s, held) < 4: // whom an earlier rule let go may still be held
			return errors.New("4 connections from one machine are not held by one peer")
		}
		if s, err = refused(ctx, in); err == nil && grown(before, s, away) < 1 {
			err = errors.New("a connection was refused, and no peer counts it as refused")
		}
		return err
	})
}

// refused is the status after one connection was refused.
func refused(ctx context.Context, in *instance) (contract.Status, error) {
	if _, _, err := in.order(ctx, nil, 0, 0); err != nil {
		return contract.Status{}, err
	}
	one, err := in.dial(ctx)
	if one != nil {
		err = one.closedAtOnce()
	}
	if no := (*turnedAway)(nil); !errors.As(err, &no) {
		return contract.Status{}, err
	}
	return in.status(ctx)
}

func held(p contract.Peer) int { return p.Held }
func away(p contract.Peer) int { return int(p.Refused) }

// sum is that count of all peers, most the largest of one of them, and grown the most
// that it rose for one.
func sum(s contract.Status, of func(contract.Peer) int) (n int) {
	for _, p := range s.Peers {
		n += of(p)
	}
	return n
}

func most(s contract.Status, of func(contract.Peer) int) int { return grown(contract.Status{}, s, of) }

func grown(was, is contract.Status, of func(contract.Peer) int) (most int) {
	for name, p := range is.Peers {
		most = max(most, of(p)-of(was.Peers[name]))
	}
	return most
}
