package conform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// crowd is the clients of one rule.
type crowd struct {
	in      *instance
	clients []*client
}

// settles is how long a count may lag behind the connections.
const settles = 3 * time.Second

// gather opens n connections to an instance that is first told to serve, and
// waits until it holds exactly these. Whoever gathers a crowd dismisses it.
func (in *instance) gather(ctx context.Context, n int) (*crowd, error) {
	s, err := in.status(ctx)
	if err == nil && s.State != contract.Serving {
		s, err = in.release(ctx)
	}
	c := &crowd{in: in}
	if err == nil {
		_, err = in.active(ctx, 0)
	}
	for len(c.clients) < n && err == nil {
		err = c.add(ctx)
	}
	if err == nil {
		_, err = in.active(ctx, n)
	}
	if err != nil {
		return nil, errors.Join(err, c.dismiss(ctx))
	}
	return c, nil
}

func (c *crowd) add(ctx context.Context) error { return c.addVia(ctx, "") }

// addVia is add through a proxy.
func (c *crowd) addVia(ctx context.Context, node string) error {
	one, err := c.in.dialVia(ctx, node)
	if err != nil {
		return fmt.Errorf("a connection to the serving instance: %w", err)
	}
	go one.follow() // waited for by hangUp
	c.clients = append(c.clients, one)
	return nil
}

// dismiss releases the instance and ends all connections.
func (c *crowd) dismiss(ctx context.Context) error {
	s, err := c.in.status(ctx)
	if err == nil && s.State != contract.Serving {
		_, err = c.in.release(ctx)
	}
	for _, one := range c.clients {
		one.hangUp()
	}
	return err
}

// active waits until the status says that n are held.
func (in *instance) active(ctx context.Context, n int) (s contract.Status, err error) {
	for end := time.Now().Add(settles); ; {
		s, err = in.status(ctx)
		switch {
		case err != nil || s.Active == n:
			return s, err
		case time.Now().After(end):
			return s, fmt.Errorf("active is %d, and %d connections are open", s.Active, n)
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return s, err
		}
	}
}

// open counts the connections that the instance has not ended.
func (c *crowd) open() int { return len(c.clients) - len(c.left()) }

// left is how connections have ended, in order.
func (c *crowd) left() []ending {
	var all []ending
	for _, one := range c.clients {
		if one.gone() {
			all = append(all, one.ending)
		}
	}
	slices.SortFunc(all, func(a, b ending) int { return a.at.Compare(b.at) })
	return all
}

// fewer waits until at least n have left, at most so long.
func (c *crowd) fewer(ctx context.Context, n int, most time.Duration) error {
	for end := time.Now().Add(most); len(c.left()) < n; {
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d connections were closed within %s, want %d", len(c.left()), len(c.clients), most, n)
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// settle waits for an order of so long: until no more than the ceiling are open,
// with some time for a slow machine, and then whether it stays like that.
func (c *crowd) settle(ctx context.Context, ceiling int, over time.Duration) error {
	for end := time.Now().Add(over + settles); c.open() > ceiling && time.Now().Before(end); {
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return wait(ctx, quiet)
}

// leave has n clients that are still there end their connections themselves.
// They are no longer of the crowd.
func (c *crowd) leave(n int) {
	c.clients = slices.DeleteFunc(c.clients, func(one *client) bool {
		if n == 0 || one.gone() {
			return false
		}
		n--
		one.hangUp()
		return true
	})
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
