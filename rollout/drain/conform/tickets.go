package conform

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// bringing is where a client connects that brings the ticket.
func (in *instance) bringing() *url.URL {
	if in.ticket == "" {
		return in.connect
	}
	to := *in.connect
	query := to.Query()
	query.Set(ticket.Word, in.ticket)
	to.RawQuery = query.Encode()
	return &to
}

// tickets lets a few clients go, and brings back what they were given, and what they were not.
func tickets(ctx context.Context, in *instance) error {
	if in.connect.Scheme == "tcp" {
		return notChecked("a FIN has no room for a ticket")
	}
	given, err := in.letGoWithTickets(ctx, 3)
	if err != nil {
		return err
	}
	defer func() { in.ticket = "" }()
	for _, one := range []struct {
		what, ticket string
		counts       uint64
	}{
		{"no ticket", "", 0},
		{"a ticket that nobody gave", "AAAAAAAA", 0},
		{"a ticket", given[0], 1},
		{"a ticket that was brought before", given[0], 0},
		{"another ticket", given[1], 1},
	} {
		in.ticket = ""
		before, err := in.ticketed(ctx)
		if err != nil {
			return err
		}
		in.ticket = one.ticket
		err = in.with(ctx, 1, func(*crowd) error {
			after, err := in.ticketed(ctx)
			if err == nil && after != before+one.counts {
				err = fmt.Errorf("a client that brought %s (%q) was let in, and ticketed went from %d to %d", one.what, one.ticket, before, after)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (in *instance) ticketed(ctx context.Context) (uint64, error) {
	s, err := in.status(ctx)
	if err == nil && s.Ticketed == nil {
		err = fmt.Errorf("it says that it can %s, but its status has no ticketed", contract.CanTickets)
	}
	if err != nil {
		return 0, err
	}
	return *s.Ticketed, nil
}

// letGoWithTickets are the tickets of n goodbyes.
func (in *instance) letGoWithTickets(ctx context.Context, n int) (given []string, err error) {
	err = in.with(ctx, n, func(c *crowd) error {
		if _, err := in.start(ctx, 0, 0, 0); err != nil {
			return err
		}
		if err := c.fewer(ctx, n, settles); err != nil {
			return err
		}
		for _, e := range c.left() {
			switch {
			case e.ticket == "":
				return errors.New("a goodbye came without a ticket")
			case slices.Contains(given, e.ticket):
				return fmt.Errorf("two goodbyes have the ticket %q", e.ticket)
			}
			given = append(given, e.ticket)
		}
		return nil
	})
	return given, err
}
