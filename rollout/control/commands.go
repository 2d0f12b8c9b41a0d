package control

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/observed"
)

// request is a command on its way through the loop.
type request struct {
	ctx     context.Context
	command rollout.Command
	by      time.Time  // when it has to be stored
	reply   chan reply // capacity 1: the loop never waits for who asked

	answer rollout.Answer
	shown  bool // what it did is in the view
}

type reply struct {
	answer rollout.Answer
	err    error
}

// Do carries out a command: when it returns without error, what it decided is
// stored, and Views shows it. An error is a *Refusal, or the end of ctx. It takes no
// longer than rollout.StorePatience, whatever the store does; a promotion asks each
// instance before that which was not heard lately.
func (c *Controller) Do(ctx context.Context, command rollout.Command) (rollout.Answer, error) {
	if p, ok := command.(rollout.Promote); ok {
		c.watcher.fresh(ctx, p.Service)
	}
	now := time.Now()
	bounded, cancel := context.WithDeadline(ctx, now.Add(rollout.StorePatience))
	defer cancel()
	r := &request{ctx: bounded, command: command, by: now.Add(rollout.StorePatience - slow), reply: make(chan reply, 1)}
	select {
	case c.commands <- r:
	case <-bounded.Done():
		return rollout.Answer{}, c.unanswered(ctx, command)
	}
	select {
	case x := <-r.reply:
		return x.answer, x.err
	case <-bounded.Done():
		return rollout.Answer{}, c.unanswered(ctx, command)
	}
}

func (c *Controller) unanswered(ctx context.Context, command rollout.Command) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return rollout.RefuseUnstored(rollout.Subject(command), rollout.Unstored(context.DeadlineExceeded))
}

// accept has a command wait for its service's turn, which is the next pass unless
// a write is under way.
func (c *Controller) accept(r *request) {
	name := rollout.Subject(r.command)
	run, ok := c.running[name]
	if !ok || c.Ready() != nil {
		r.reply <- reply{err: c.unknown(name)}
		return
	}
	run.commands = append(run.commands, r)
}

// obey decides about the commands that wait, until one of them has to be stored: it
// is tried at once, also after a failure. One that has waited for too long is refused;
// nothing of it is done later.
func (c *Controller) obey(ctx context.Context, name discovery.Service, conf Service, configured bool, seen observed.Seen, now time.Time) {
	run := c.running[name]
	for len(run.commands) > 0 {
		r := run.commands[0]
		switch {
		case r.ctx.Err() != nil:
		case !configured:
			r.reply <- reply{err: c.unknown(name)}
		case !now.Before(r.by):
			r.reply <- reply{err: rollout.RefuseUnstored(name, errors.New("the store has not answered what was asked before"))}
		case run.write != nil:
			return
		default:
			next, answer, err := rollout.Apply(r.command, conf.Policy, run.state, seen, now)
			r.answer = answer
			switch {
			case err != nil:
				r.reply <- reply{err: err}
			case reflect.DeepEqual(next, run.state):
				run.answers = append(run.answers, r)
			default:
				c.begin(ctx, name, next, r)
			}
		}
		run.commands = run.commands[1:]
	}
}
