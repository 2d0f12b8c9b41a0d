package conform

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// even judges whether closes came at start + k·over/n after the order. Machines
// and networks are late at times, and an instance may shift the rest then instead
// of hurrying, so it is the distances that count: a quarter of them may be
// anything, the others are off by a quarter at most; the median or the mean, one
// of which a disturbance spares, by no more than within allows; and neither the
// first close nor the time from it to the last is off by several distances.
func even(left []ending, began time.Time, start, over, within time.Duration) error {
	n := len(left)
	distance := over / time.Duration(n)
	var gaps, off []time.Duration
	for k := range n - 1 {
		gap := left[k+1].at.Sub(left[k].at)
		gaps, off = append(gaps, gap), append(off, (gap-distance).Abs())
	}
	slices.Sort(gaps)
	slices.Sort(off)
	first, all := left[0].at.Sub(began), left[n-1].at.Sub(left[0].at)
	median, mean, uneven := gaps[len(gaps)/2], all/time.Duration(n-1), off[len(off)*3/4]
	switch {
	case first < start-distance/4 || first > start+2*distance:
		return fmt.Errorf("the first close came %s after the order, want %s", round(first), start)
	case min((median-distance).Abs(), (mean-distance).Abs()) > within,
		uneven > max(distance/4, 20*time.Millisecond),
		(all - over + distance).Abs() > 3*distance:
		return fmt.Errorf("%d closes came within %s, with a median distance of %s, and a quarter of the distances %s or more off; want %s between any two",
			n, round(all), round(median), round(uneven), round(distance))
	}
	return nil
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func natural(ctx context.Context, in *instance) error {
	const over, start = 2 * time.Second, 500 * time.Millisecond
	n := in.opt.Connections
	keep, by := n/2, n/4
	return in.with(ctx, n, func(c *crowd) error {
		before, err := in.status(ctx)
		if err != nil {
			return err
		}
		if _, err := in.start(ctx, keep, over, start); err != nil {
			return err
		}
		c.leave(by)
		if err := c.settle(ctx, keep, start+over); err != nil {
			return err
		}
		s, err := in.status(ctx)
		switch {
		case err != nil:
			return err
		case c.open() != keep:
			return fmt.Errorf("of %d connections %d ended by themselves, and with ceiling %d there are %d left", n, by, keep, c.open())
		case s.Evicted-before.Evicted != uint64(n-keep-by) || s.Active != keep:
			return fmt.Errorf("of %d connections %d ended by themselves and %d were closed, but evicted rose by %d and active is %d", n, by, n-keep-by, s.Evicted-before.Evicted, s.Active)
		}
		return nil
	})
}

func repeatRunning(ctx context.Context, in *instance) error {
	const over, start = 2 * time.Second, 200 * time.Millisecond
	n := in.opt.Connections
	return in.with(ctx, n, func(c *crowd) error {
		sent := time.Now()
		o, _, err := in.order(ctx, upTo(n/2), over, start)
		began := sent.Add(time.Since(sent) / 2)
		for err == nil && time.Since(began) < start+over {
			if err = wait(ctx, 50*time.Millisecond); err == nil {
				_, err = in.say(ctx, "PUT", o)
			}
		}
		if err == nil {
			err = c.settle(ctx, n/2, 0)
		}
		left := c.left()
		switch {
		case err != nil:
			return err
		case len(left) != n-n/2:
			return fmt.Errorf("repeated, an order closed %d connections to get from %d to %d", len(left), n, n/2)
		}
		return even(left, began, start, over, over/time.Duration(len(left))/4)
	})
}

func stop(ctx context.Context, in *instance) error {
	return in.stops(ctx, "an order with ceiling null", func() error {
		_, _, err := in.order(ctx, nil, 0, 0)
		return err
	})
}

func releaseRunning(ctx context.Context, in *instance) error {
	return in.stops(ctx, "a release", func() error {
		_, err := in.release(ctx)
		return err
	})
}

// stops: what is done in the middle of an order ends its closes.
func (in *instance) stops(ctx context.Context, what string, do func() error) error {
	n := in.opt.Connections
	over := time.Duration(n) * 200 * time.Millisecond
	return in.with(ctx, n, func(c *crowd) error {
		if _, err := in.start(ctx, 0, over, 0); err != nil {
			return err
		}
		if err := c.fewer(ctx, 3, over); err != nil {
			return err
		}
		if err := do(); err != nil {
			return err
		}
		answered := time.Now()
		if err := wait(ctx, quiet); err != nil {
			return err
		}
		// A close that was under way may arrive after the answer.
		const underWay = 250 * time.Millisecond
		late := slices.DeleteFunc(c.left(), func(e ending) bool { return e.at.Before(answered.Add(underWay)) })
		if len(late) > 0 {
			return fmt.Errorf("%d connections were closed within %s after %s", len(late), quiet, what)
		}
		return nil
	})
}

func replace(ctx context.Context, in *instance) error {
	n := in.opt.Connections
	slow, fast := time.Duration(n)*400*time.Millisecond, 500*time.Millisecond
	return in.with(ctx, n, func(c *crowd) error {
		o, _, err := in.order(ctx, upTo(0), slow, 0)
		if err != nil {
			return err
		}
		newer := contract.Order{Rollout: o.Rollout, Epoch: o.Epoch, Step: o.Step + 1, Ceiling: upTo(n / 2), OverMS: fast.Milliseconds()}
		if _, err := in.say(ctx, "PUT", newer); err != nil {
			return err
		}
		if err := c.fewer(ctx, n-n/2, fast+1500*time.Millisecond); err != nil {
			return fmt.Errorf("a newer order with ceiling %d within %s replaced one with ceiling 0: %w", n/2, fast, err)
		}
		if err := wait(ctx, quiet); err != nil {
			return err
		}
		if open := c.open(); open != n/2 {
			return fmt.Errorf("a newer order with ceiling %d replaced one with ceiling 0, and %d are left: the older one goes on", n/2, open)
		}
		return nil
	})
}
