package conform

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

func status(ctx context.Context, in *instance) error {
	_, err := in.status(ctx)
	return err
}

func guard(ctx context.Context, in *instance) error {
	if in.opt.Token == "" {
		peer, err := netip.ParseAddrPort(in.peer.String())
		if err == nil && !peer.Addr().Unmap().IsLoopback() {
			return fmt.Errorf("it answers at %s although no token was shown", peer.Addr())
		}
		return notChecked("no token is used, and it was asked on loopback")
	}
	return in.unchanged(ctx, func() error {
		for name, token := range map[string]string{"without a token": "", "with a wrong token": in.opt.Token + "x"} {
			for _, method := range []string{"GET", "PUT", "DELETE"} {
				body := ""
				if method != "GET" {
					body = fmt.Sprintf(`{"rollout":%q,"epoch":%d,"step":1,"ceiling":null}`, rolloutName, in.epoch+1)
				}
				a, err := in.ask(ctx, method, token, body)
				if err != nil {
					return err
				}
				if a.code != http.StatusUnauthorized {
					return fmt.Errorf("%s %s gets %d, want 401", method, name, a.code)
				}
			}
		}
		return nil
	})
}

func order(ctx context.Context, in *instance) error {
	for _, ceiling := range []*int{nil, upTo(1 << 30)} {
		o, s, err := in.order(ctx, ceiling, 0, 0)
		if err != nil {
			return err
		}
		if err := shows(s, o); err != nil {
			return err
		}
	}
	return nil
}

// shows: a status after an order that closes nothing.
func shows(s contract.Status, o contract.Order) error {
	switch {
	case s.State != contract.Draining && s.State != contract.Drained:
		return fmt.Errorf("after an order the state is %s", s.State)
	case s.Rollout != o.Rollout || s.Epoch != o.Epoch || s.Step != o.Step:
		return fmt.Errorf("after the order of rollout %q, epoch %d, step %d it shows rollout %q, epoch %d, step %d", o.Rollout, o.Epoch, o.Step, s.Rollout, s.Epoch, s.Step)
	case number(s.Ceiling) != number(o.Ceiling):
		return fmt.Errorf("after an order with ceiling %s it shows ceiling %s", number(o.Ceiling), number(s.Ceiling))
	}
	return nil
}

func number(n *int) string {
	if n == nil {
		return "null"
	}
	return fmt.Sprint(*n)
}

func repeat(ctx context.Context, in *instance) error {
	o, _, err := in.order(ctx, nil, 0, 0)
	if err != nil {
		return err
	}
	return in.unchanged(ctx, func() error {
		s, err := in.say(ctx, "PUT", o)
		if err != nil {
			return fmt.Errorf("said again: %w", err)
		}
		return shows(s, o)
	})
}

func staleOrder(ctx context.Context, in *instance) error {
	in.epoch++ // so that the older epoch is one, too
	o, _, err := in.order(ctx, nil, 0, 0)
	if err != nil {
		return err
	}
	o.Step = 5
	if _, err := in.say(ctx, "PUT", o); err != nil {
		return fmt.Errorf("a newer step: %w", err)
	}
	older, earlier := o, o
	older.Step = 4
	earlier.Epoch, earlier.Step = o.Epoch-1, 9
	return in.unchanged(ctx, func() error {
		for _, stale := range []contract.Order{older, earlier} {
			body := fmt.Sprintf(`{"rollout":%q,"epoch":%d,"step":%d,"ceiling":1000000,"over_ms":0,"start_ms":0}`, rolloutName, stale.Epoch, stale.Step)
			if err := in.mustGet(ctx, http.StatusConflict, "PUT", body); err != nil {
				return fmt.Errorf("epoch %d step %d after epoch %d step %d: %w", stale.Epoch, stale.Step, o.Epoch, o.Step, err)
			}
		}
		return nil
	})
}

func release(ctx context.Context, in *instance) error {
	if _, _, err := in.order(ctx, nil, 0, 0); err != nil {
		return err
	}
	for _, which := range []string{"the release", "the same release again"} {
		s, err := in.release(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", which, err)
		case s.State != contract.Serving || s.Ceiling != nil:
			return fmt.Errorf("after %s it is %s with ceiling %s, want serving and null", which, s.State, number(s.Ceiling))
		}
	}
	return nil
}

func staleRelease(ctx context.Context, in *instance) error {
	in.epoch++
	if _, _, err := in.order(ctx, nil, 0, 0); err != nil {
		return err
	}
	return in.unchanged(ctx, func() error {
		return in.mustGet(ctx, http.StatusConflict, "DELETE", fmt.Sprintf(`{"rollout":%q,"epoch":%d}`, rolloutName, in.epoch-1))
	})
}

func boot(ctx context.Context, in *instance) error {
	first, err := in.status(ctx)
	if err != nil {
		return err
	}
	_, ordered, err := in.order(ctx, nil, 0, 0)
	if err != nil {
		return err
	}
	released, err := in.release(ctx)
	if err != nil {
		return err
	}
	for _, later := range []contract.Status{ordered, released} {
		if later.Boot != first.Boot {
			return fmt.Errorf("boot was %q and is %q a moment later; choose it once, when the process starts", first.Boot, later.Boot)
		}
	}
	if first.Boot == "" {
		return notChecked("it says no boot, so a new process is only told by totals that fall")
	}
	return nil
}

func lateOrder(ctx context.Context, in *instance) error {
	o, _, err := in.order(ctx, nil, 0, 0)
	if err != nil {
		return err
	}
	if _, err := in.release(ctx); err != nil {
		return err
	}
	return in.unchanged(ctx, func() error {
		return in.mustGet(ctx, http.StatusConflict, "PUT", fmt.Sprintf(`{"rollout":%q,"epoch":%d,"step":2,"ceiling":null}`, rolloutName, o.Epoch))
	})
}

func malformed(ctx context.Context, in *instance) error {
	return in.refuses(ctx, "", `{`, `<html></html>`, `[]`, `null`, `"drain"`, `{"rollout":"conform","epoch":`)
}

func wrongType(ctx context.Context, in *instance) error {
	e := in.epoch + 2
	var bodies []string
	for _, wrong := range []string{
		`"rollout":7,"epoch":E,"step":1,"ceiling":null`,
		`"epoch":E,"step":1,"ceiling":null`,
		`"rollout":"conform","step":1,"ceiling":null`,
		`"rollout":"conform","epoch":"E","step":1,"ceiling":null`,
		`"rollout":"conform","epoch":-E,"step":1,"ceiling":null`,
		`"rollout":"conform","epoch":E.5,"step":1,"ceiling":null`,
		`"rollout":"conform","epoch":E,"step":"1","ceiling":null`,
		`"rollout":"conform","epoch":E,"step":-1,"ceiling":null`,
		`"rollout":"conform","epoch":E,"step":1,"ceiling":"1000000"`,
		`"rollout":"conform","epoch":E,"step":1,"ceiling":1000000.5`,
		`"rollout":"conform","epoch":E,"step":1,"ceiling":null,"over_ms":"3s"`,
	} {
		bodies = append(bodies, "{"+strings.ReplaceAll(wrong, "E", fmt.Sprint(e))+"}")
	}
	return in.refuses(ctx, bodies...)
}

func outOfRange(ctx context.Context, in *instance) error {
	var bodies []string
	for _, wrong := range []string{
		`"ceiling":-1`,
		`"ceiling":1000000,"over_ms":-1`,
		`"ceiling":1000000,"start_ms":-1`,
		`"ceiling":1000000,"over_ms":86400001`,
		`"ceiling":1000000,"start_ms":86400001`,
	} {
		bodies = append(bodies, fmt.Sprintf(`{"rollout":%q,"epoch":%d,"step":1,%s}`, rolloutName, in.epoch+2, wrong))
	}
	return in.refuses(ctx, bodies...)
}

// refuses: none of the orders is taken. An order stands meanwhile, so that one
// that is taken by mistake cannot hide.
func (in *instance) refuses(ctx context.Context, bodies ...string) error {
	if _, _, err := in.order(ctx, nil, 0, 0); err != nil {
		return err
	}
	for _, body := range bodies {
		err := in.unchanged(ctx, func() error { return in.mustGet(ctx, http.StatusBadRequest, "PUT", body) })
		if err != nil {
			in.epoch += 3 // whatever it took is older from now on
			return err
		}
	}
	return nil
}

func method(ctx context.Context, in *instance) error {
	if _, _, err := in.order(ctx, nil, 0, 0); err != nil {
		return err
	}
	return in.unchanged(ctx, func() error {
		body := fmt.Sprintf(`{"rollout":%q,"epoch":%d,"step":2,"ceiling":null}`, rolloutName, in.epoch)
		return in.mustGet(ctx, http.StatusMethodNotAllowed, "POST", body)
	})
}

func oversized(ctx context.Context, in *instance) error {
	o, _, err := in.order(ctx, nil, 0, 0)
	if err != nil {
		return err
	}
	return in.unchanged(ctx, func() error {
		body := fmt.Sprintf(`{"rollout":%q,"epoch":%d,"step":%d,"ceiling":null}`, rolloutName, o.Epoch, o.Step+1) + strings.Repeat(" ", 1<<20)
		a, err := in.ask(ctx, "PUT", in.opt.Token, body)
		if err == nil && (a.code < 400 || a.code >= 500) { // to hang up in the middle is a refusal, too
			return fmt.Errorf("it gets %d, want 413", a.code)
		}
		return nil
	})
}

func (in *instance) mustGet(ctx context.Context, code int, method, body string) error {
	a, err := in.ask(ctx, method, in.opt.Token, body)
	if err == nil && a.code != code {
		err = fmt.Errorf("%s %s gets %d, want %d", method, cmp.Or(body, "without a body"), a.code, code)
	}
	return err
}

// unchanged: what is done meanwhile leaves the standing word as it is.
func (in *instance) unchanged(ctx context.Context, do func() error) error {
	before, err := in.status(ctx)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := in.status(ctx)
	if err != nil {
		return err
	}
	if was, is := standing(before), standing(after); was != is {
		return fmt.Errorf("it was refused or said again, but the status changed from %s to %s", was, is)
	}
	return nil
}

func standing(s contract.Status) string {
	return fmt.Sprintf("serving %t, rollout %q, epoch %d, step %d, ceiling %s", s.State == contract.Serving, s.Rollout, s.Epoch, s.Step, number(s.Ceiling))
}
