package conform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// with runs a check with n connections to a serving instance.
func (in *instance) with(ctx context.Context, n int, check func(*crowd) error) error {
	c, err := in.gather(ctx, n)
	if err != nil {
		return err
	}
	err = check(c)
	if end := c.dismiss(ctx); err == nil {
		err = end
	}
	return err
}

func accept(ctx context.Context, in *instance) error {
	before, err := in.status(ctx)
	if err != nil {
		return err
	}
	return in.with(ctx, 5, func(c *crowd) error {
		s, err := in.status(ctx)
		if err != nil {
			return err
		}
		if s.Accepted != before.Accepted+5 {
			return fmt.Errorf("accepted went from %d to %d with 5 connections", before.Accepted, s.Accepted)
		}
		c.leave(2)
		after, err := in.active(ctx, 3)
		if err != nil {
			return fmt.Errorf("2 of 5 connections ended by themselves: %w", err)
		}
		if after.Accepted != s.Accepted || after.Evicted != s.Evicted {
			return fmt.Errorf("2 connections ended by themselves: accepted went from %d to %d and evicted from %d to %d; both must stay",
				s.Accepted, after.Accepted, s.Evicted, after.Evicted)
		}
		return nil
	})
}

// returned: an instance that never says of any client that it returns, and reports 0
// and not null, would have a rollout wait for everybody whom it let go.
func returned(ctx context.Context, in *instance) error {
	before, err := in.status(ctx)
	if err != nil {
		return err
	}
	return in.with(ctx, 3, func(*crowd) error {
		s, err := in.status(ctx)
		switch {
		case err != nil:
			return err
		case s.Returned == nil:
			return nil
		case before.Returned == nil || *s.Returned > *before.Returned:
			return fmt.Errorf("returned rose to %d with 3 connections of clients that had never been here", *s.Returned)
		case *s.Returned == 0:
			return notChecked(fmt.Sprintf("returned is 0 after %d connections; where the application never says that a client returns it must be null", s.Accepted))
		}
		return nil
	})
}

func refuse(ctx context.Context, in *instance) error {
	return in.with(ctx, 2, func(c *crowd) error {
		_, before, err := in.order(ctx, nil, 0, 0)
		if err != nil {
			return err
		}
		one, err := in.dial(ctx)
		if one != nil {
			err = one.closedAtOnce()
		}
		var away *turnedAway
		switch {
		case !errors.As(err, &away):
			return err
		case in.connect.Scheme == "tcp", in.connect.Scheme == "grpc":
		case away.code != http.StatusServiceUnavailable:
			return fmt.Errorf("a new connection while draining: %w; want 503", away)
		case away.retry == "":
			return errors.New("a new connection while draining is answered 503, but without Retry-After")
		}
		after, err := in.status(ctx)
		if err == nil && after.Accepted != before.Accepted {
			err = fmt.Errorf("a refused connection is counted: accepted went from %d to %d", before.Accepted, after.Accepted)
		}
		return err
	})
}

// closedAtOnce is a turnedAway if the instance ends the connection, which it had
// accepted, without a byte.
func (c *client) closedAtOnce() error {
	if c.quit != nil {
		return c.refusedStream()
	}
	defer c.conn.Close()
	if c.websocket {
		return errors.New("a new WebSocket while draining is accepted, want 503")
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
	_, err := c.read.ReadByte()
	switch {
	case err == nil:
		return errors.New("a new connection while draining is served")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("a new connection while draining is still open after 1s")
	}
	return &turnedAway{err: err}
}

func serveAgain(ctx context.Context, in *instance) error {
	return in.with(ctx, 1, func(c *crowd) error {
		if _, _, err := in.order(ctx, nil, 0, 0); err != nil {
			return err
		}
		if _, err := in.release(ctx); err != nil {
			return err
		}
		if err := c.add(ctx); err != nil {
			return fmt.Errorf("after a release: %w", err)
		}
		_, err := in.active(ctx, c.open())
		return err
	})
}

func hold(ctx context.Context, in *instance) error {
	return in.with(ctx, 5, func(c *crowd) error {
		for _, ceiling := range []*int{nil, upTo(5), upTo(100)} {
			if _, _, err := in.order(ctx, ceiling, 0, 0); err != nil {
				return err
			}
			if err := wait(ctx, 500*time.Millisecond); err != nil {
				return err
			}
			if n := len(c.left()); n > 0 {
				return fmt.Errorf("%d of 5 connections were closed after an order with ceiling %s", n, number(ceiling))
			}
		}
		return nil
	})
}

// What the watched descent is: a quarter of the connections stays.
const (
	descentOver  = 3 * time.Second
	descentStart = 300 * time.Millisecond
	quiet        = time.Second // after the last close that was ordered
)

// descent is one order as it was carried out; three rules judge it.
type descent struct {
	before, after contract.Status
	began         time.Time // halfway between the order and its answer
	ordered       int       // closes
	left          []ending
}

func (in *instance) descend(ctx context.Context) (*descent, error) {
	if in.seen != nil {
		return in.seen, nil
	}
	d := &descent{}
	err := in.with(ctx, in.opt.Connections, func(c *crowd) error {
		keep := in.opt.Connections / 4
		d.ordered = in.opt.Connections - keep
		var err error
		if d.before, err = in.status(ctx); err != nil {
			return err
		}
		if d.began, err = in.start(ctx, keep, descentOver, descentStart); err != nil {
			return err
		}
		if err := c.settle(ctx, keep, descentStart+descentOver); err != nil {
			return err
		}
		d.left = c.left()
		d.after, err = in.status(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	in.seen = d
	return d, nil
}

// start orders and says when.
func (in *instance) start(ctx context.Context, ceiling int, over, start time.Duration) (time.Time, error) {
	sent := time.Now()
	_, _, err := in.order(ctx, upTo(ceiling), over, start)
	return sent.Add(time.Since(sent) / 2), err
}

func ceiling(ctx context.Context, in *instance) error {
	d, err := in.descend(ctx)
	switch {
	case err != nil:
		return err
	case len(d.left) != d.ordered:
		return fmt.Errorf("%d connections were closed to get from %d to %d", len(d.left), d.before.Active, d.before.Active-d.ordered)
	case d.after.State != contract.Draining:
		return fmt.Errorf("no order followed, but it is %s", d.after.State)
	}
	return nil
}

func pace(ctx context.Context, in *instance) error {
	d, err := in.descend(ctx)
	if err != nil {
		return err
	}
	// 5 % of the distance tells over/n from over/(n-1) up to 20 closes.
	return even(d.left, d.began, descentStart, descentOver, max(descentOver/time.Duration(len(d.left))/20, 3*time.Millisecond))
}

func goodbye(ctx context.Context, in *instance) error {
	d, err := in.descend(ctx)
	if err != nil {
		return err
	}
	for i, e := range d.left {
		switch {
		case in.connect.Scheme == "tcp" && e.err != nil && !errors.Is(e.err, io.EOF):
			return fmt.Errorf("close %d of %d came without a FIN: %w", i+1, len(d.left), e.err)
		case in.connect.Scheme == "grpc":
			if e.err != nil || e.code != unavailable {
				return fmt.Errorf("close %d of %d came with the gRPC status %d (%v), want %d", i+1, len(d.left), e.code, e.err, unavailable)
			}
		case in.connect.Scheme != "tcp" && e.code == 0:
			return fmt.Errorf("close %d of %d came without a close frame, want 1012", i+1, len(d.left))
		case in.connect.Scheme != "tcp" && e.code != 1012:
			return fmt.Errorf("close %d of %d came with the code %d, want 1012", i+1, len(d.left), e.code)
		}
	}
	return nil
}

func evicted(ctx context.Context, in *instance) error {
	d, err := in.descend(ctx)
	if err != nil {
		return err
	}
	closed := uint64(len(d.left))
	if got := d.after.Evicted - d.before.Evicted; got != closed {
		return fmt.Errorf("%d connections were closed and evicted rose by %d", closed, got)
	}
	if want := d.before.Active - len(d.left); d.after.Active != want {
		return fmt.Errorf("active is %d after %d of %d connections were closed", d.after.Active, closed, d.before.Active)
	}
	if d.after.Accepted != d.before.Accepted {
		return fmt.Errorf("accepted went from %d to %d although nobody came", d.before.Accepted, d.after.Accepted)
	}
	return nil
}

// drained: clients that answer every goodbye have all gone, so that nothing lingers.
func drained(ctx context.Context, in *instance) error {
	return in.with(ctx, 4, func(c *crowd) error {
		if _, err := in.start(ctx, 0, 0, 0); err != nil {
			return err
		}
		if err := c.fewer(ctx, 4, settles); err != nil {
			return err
		}
		for end := time.Now().Add(2 * settles); ; {
			s, err := in.status(ctx)
			switch {
			case err != nil || s.State == contract.Drained:
				return err
			case time.Now().After(end):
				return fmt.Errorf("all connections have ended, but it is %s with active %d, requests %d and lingering %d", s.State, s.Active, s.Requests, s.Lingering)
			}
			if err := wait(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	})
}
