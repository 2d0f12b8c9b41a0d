package conform

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

func unknownWord(ctx context.Context, in *instance) error {
	return in.refuses(ctx, fmt.Sprintf(`{"rollout":%q,"epoch":%d,"step":1,"ceiling":1000000,"a-word-that-nobody-knows":true}`, rolloutName, in.epoch+2))
}

const levelName = "conform-level"

func levels(ctx context.Context, in *instance) (err error) {
	o, _, err := in.order(ctx, nil, 0, 0)
	if err != nil {
		return err
	}
	before, err := in.status(ctx)
	if err != nil {
		return err
	}
	other := contract.Order{Rollout: rolloutName, Epoch: before.LevelOf(levelName).Epoch + 2, Step: 3, Level: levelName}
	defer func() { // whatever is shown of it, it must not go on refusing
		body := fmt.Sprintf(`{"rollout":%q,"epoch":%d,"level":%q}`, rolloutName, other.Epoch, levelName)
		_, end := in.ask(context.WithoutCancel(ctx), "DELETE", in.opt.Token, body)
		err = errors.Join(err, end)
	}()
	s, err := in.say(ctx, "PUT", other)
	if err != nil {
		return err
	}
	l := s.LevelOf(levelName)
	switch {
	case l.State != contract.Draining && l.State != contract.Drained || l.Epoch != other.Epoch || l.Step != other.Step || l.Rollout != other.Rollout:
		return fmt.Errorf("after the order of level %q, epoch %d, step %d its levels are %+v", levelName, other.Epoch, other.Step, s.Levels)
	case s.Epoch != o.Epoch || s.Step != o.Step:
		return fmt.Errorf("an order of level %q, epoch %d, changed the rollout's from epoch %d to %d", levelName, other.Epoch, o.Epoch, s.Epoch)
	}
	if err := in.mustGet(ctx, http.StatusConflict, "PUT", fmt.Sprintf(`{"rollout":%q,"epoch":%d,"step":2,"ceiling":null,"level":%q}`, rolloutName, other.Epoch, levelName)); err != nil {
		return fmt.Errorf("an older step of the level: %w", err)
	}
	if s, err = in.release(ctx); err != nil {
		return err
	}
	if l := s.LevelOf(levelName); l.State == contract.Serving || s.State == contract.Serving {
		return fmt.Errorf("the release of level %q ended level %q, too: it is %s", contract.Rollout, levelName, s.State)
	}
	s, err = in.say(ctx, "DELETE", contract.Release{Rollout: rolloutName, Epoch: other.Epoch, Level: levelName})
	if err == nil && (s.LevelOf(levelName).State != contract.Serving || s.State != contract.Serving) {
		err = fmt.Errorf("after the release of level %q it is %s, and the instance %s", levelName, s.LevelOf(levelName).State, s.State)
	}
	return err
}

// fromNodes: of two nodes, which clients name in the header, one is told to go; over TCP
// an address that nobody has, and then that of the check.
func fromNodes(ctx context.Context, in *instance) error {
	return in.with(ctx, 3, func(c *crowd) (err error) {
		defer func() { err = errors.Join(err, in.releaseLevel(context.WithoutCancel(ctx))) }()
		if in.connect.Scheme != "tcp" {
			for range 3 {
				if err := c.addVia(ctx, "conform-a"); err != nil {
					return err
				}
			}
			return c.letGo(ctx, "conform-a", "conform-a", "conform-b")
		}
		if err := c.letGo(ctx, "192.0.2.1", "nobody", ""); err != nil { // an address of no machine: RFC 5737
			return err
		}
		s, err := in.status(ctx)
		for at, p := range s.Peers {
			if p.Held > 0 && at != contract.OtherPeers {
				return errors.Join(err, c.letGo(ctx, at, "", ""))
			}
		}
		return errors.Join(err, notChecked("it does not say by which address the connections of this check are known"))
	})
}

// letGo orders that those from a node go, who are the clients through a proxy of that
// name, and only they; then that one of them is refused, and one through another is not.
func (c *crowd) letGo(ctx context.Context, from, through, other string) error {
	in := c.in
	s, err := in.status(ctx)
	if err != nil {
		return err
	}
	o := contract.Order{Rollout: rolloutName, Epoch: s.LevelOf(levelName).Epoch + 1, Step: 1, Ceiling: upTo(0), OverMS: 300, Level: levelName, From: []string{from}}
	if _, err := in.say(ctx, "PUT", o); err != nil {
		return err
	}
	stay := len(slices.DeleteFunc(slices.Clone(c.clients), func(one *client) bool { return one.node == through }))
	if err := c.settle(ctx, stay, 300*time.Millisecond); err != nil {
		return err
	}
	for _, one := range c.clients {
		if one.gone() != (one.node == through) {
			return fmt.Errorf("an order from [%q]: of the connections, with the node %q, gone is %t", from, one.node, one.gone())
		}
	}
	one, err := in.dialVia(ctx, through)
	if one != nil && through != "nobody" {
		err = one.closedAtOnce()
	} else if one != nil {
		_ = one.conn.Close()
	}
	if away := (*turnedAway)(nil); errors.As(err, &away) == (through == "nobody") || err != nil && away == nil {
		return fmt.Errorf("under an order from [%q], a new connection with the node %q: %w", from, through, err)
	}
	if other != through && through != "nobody" {
		if err := c.addVia(ctx, other); err != nil {
			return fmt.Errorf("under an order from [%q], with the node %q: %w", from, other, err)
		}
	}
	return in.releaseLevel(ctx)
}

// releaseLevel ends the order of the level, if it stands.
func (in *instance) releaseLevel(ctx context.Context) error {
	s, err := in.status(ctx)
	if l := s.LevelOf(levelName); err == nil && (l.State == contract.Draining || l.State == contract.Drained) {
		_, err = in.say(ctx, "DELETE", contract.Release{Rollout: rolloutName, Epoch: l.Epoch, Level: levelName})
	}
	return err
}
