package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/drain/strictjson"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

func badRequest(err error) *rollout.Refusal {
	return &rollout.Refusal{Code: rollout.BadRequest, Text: err.Error()}
}

func promote(name discovery.Service, body []byte) (rollout.Command, error) {
	var p Promotion
	if err := decode(body, &p); err != nil {
		return nil, err
	}
	target, err := discovery.ParseColour(p.Target)
	return rollout.Promote{Service: name, Target: target, Overrides: p.Overrides, Force: p.Force, Message: p.Message}, err
}

func setPace(name discovery.Service, body []byte) (rollout.Command, error) {
	var p pacing
	if err := decode(body, &p); err != nil {
		return nil, err
	}
	return rollout.SetPace{Service: name, Funnel: p.Funnel, Message: p.Message}, p.Funnel.Check()
}

func adopt(name discovery.Service, body []byte) (rollout.Command, error) {
	var a adoption
	if err := decode(body, &a); err != nil {
		return nil, err
	}
	_, err := discovery.ParseColour(string(a.Live))
	return rollout.Adopt{Service: name, Live: a.Live}, err
}

// plain decodes a command that has nothing to say but its service and a message.
func plain(make func(discovery.Service, state.Message) rollout.Command) func(discovery.Service, []byte) (rollout.Command, error) {
	return func(name discovery.Service, body []byte) (rollout.Command, error) {
		var s saying
		if len(bytes.TrimSpace(body)) == 0 {
			return make(name, ""), nil
		}
		err := decode(body, &s)
		return make(name, s.Message), err
	}
}

// decode reads one JSON value with known keys only, and nothing after it.
func decode(body []byte, into any) error {
	err := strictjson.Decode(bytes.NewReader(body), into)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return errors.New("the body is empty; it must be one JSON object")
	case errors.Is(err, strictjson.ErrMore):
		return errors.New("something follows the JSON object in the body; send one object only")
	}
	return fmt.Errorf("the body is not what this command takes: %w", err)
}

// planQuery reads GET …/plan?target=green and the overrides in the words of a
// promotion's body; an empty value is one that was left out.
func planQuery(q url.Values) (target discovery.Colour, o policy.Overrides, err error) {
	for key, values := range q {
		if len(values) != 1 {
			return "", o, fmt.Errorf("%s is given %d times; give it once", key, len(values))
		}
		value := values[0]
		switch {
		case key == "target":
			target, err = discovery.ParseColour(value)
		case value == "":
		case key == "close":
			o.Close, err = parse(value, strconv.Atoi)
		case key == "every":
			o.Every, err = parse(value, text[units.Duration])
		case key == "grace":
			o.Grace, err = parse(value, text[units.Duration])
		case key == "canary":
			o.Canary, err = parse(value, text[units.Share])
		case key == "soak":
			o.Soak, err = parse(value, text[units.Duration])
		case key == "window":
			o.Window, err = parse(value, text[units.Window])
		case key == "stagger":
			o.Stagger, err = parse(value, text[units.Portion])
		case key == "stagger_soak":
			o.StaggerSoak, err = parse(value, text[units.Duration])
		case key == "deadline":
			o.Deadline, err = parse(value, text[units.Duration])
		default:
			err = errors.New("plan knows target, close, every, grace, canary, soak, window, stagger, stagger_soak and deadline")
		}
		if err != nil {
			return "", o, fmt.Errorf("%s: %w", key, err)
		}
	}
	if target == "" {
		return "", o, errors.New("target is missing; use target=blue or target=green")
	}
	return target, o, nil
}

func (p Promotion) query() url.Values {
	q := url.Values{"target": {p.Target}}
	if p.Close != nil {
		q.Set("close", strconv.Itoa(*p.Close))
	}
	if p.Window != nil {
		q.Set("window", p.Window.String())
	}
	for key, d := range map[string]*units.Duration{"every": p.Every, "grace": p.Grace, "soak": p.Soak, "stagger_soak": p.StaggerSoak, "deadline": p.Deadline} {
		if d != nil {
			q.Set(key, d.String())
		}
	}
	if p.Canary != nil {
		q.Set("canary", p.Canary.String())
	}
	if p.Stagger != nil {
		q.Set("stagger", p.Stagger.String())
	}
	return q
}

func parse[T any](value string, read func(string) (T, error)) (*T, error) {
	v, err := read(value)
	return &v, err
}

// text reads a value that knows its own text form.
func text[T any, P interface {
	*T
	UnmarshalText([]byte) error
}](value string) (v T, err error) {
	err = P(&v).UnmarshalText([]byte(value))
	return v, err
}
