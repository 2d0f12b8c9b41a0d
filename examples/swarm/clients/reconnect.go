package clients

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Reconnect is how long a client waits before it dials again. The zero value
// dials at once.
type Reconnect struct {
	// Base and Max bound the delay before attempt k (0 is the first after a
	// disconnect): uniform in [0, min(Max, Base·2^k)), "full jitter". With
	// Base = Max it is uniform in [0, Max).
	Base, Max time.Duration
	// Least is waited before that in any case.
	Least time.Duration
}

// retryAtOnce keeps a client without backoff from spinning on a server that
// refuses it; it applies from the second attempt on.
const retryAtOnce = 100 * time.Millisecond

// ParseReconnect reads "at-once", "uniform:5s", "uniform:3s..6s" or
// "backoff:500ms..10s".
func ParseReconnect(s string) (Reconnect, error) {
	kind, span, _ := strings.Cut(s, ":")
	wrong := fmt.Errorf("%q is no way to reconnect; use at-once, uniform:5s, uniform:3s..6s or backoff:500ms..10s", s)
	switch kind {
	case "at-once":
		if span != "" {
			return Reconnect{}, wrong
		}
		return Reconnect{}, nil
	case "uniform":
		low, high, between := strings.Cut(span, "..")
		if !between {
			low, high = "0s", span
		}
		least, err := time.ParseDuration(low)
		most, err2 := time.ParseDuration(high)
		if err != nil || err2 != nil || least < 0 || most <= least {
			return Reconnect{}, wrong
		}
		return Reconnect{Base: most - least, Max: most - least, Least: least}, nil
	case "backoff":
		low, high, _ := strings.Cut(span, "..")
		base, err := time.ParseDuration(low)
		most, err2 := time.ParseDuration(high)
		if err != nil || err2 != nil || base <= 0 || most < base {
			return Reconnect{}, wrong
		}
		return Reconnect{Base: base, Max: most}, nil
	}
	return Reconnect{}, wrong
}

func (r Reconnect) String() string {
	switch {
	case r.Max == 0:
		return "at-once"
	case r.Least > 0:
		return "uniform:" + r.Least.String() + ".." + (r.Least + r.Max).String()
	case r.Base == r.Max:
		return "uniform:" + r.Max.String()
	}
	return "backoff:" + r.Base.String() + ".." + r.Max.String()
}

// MarshalText and UnmarshalText make it a flag (flag.TextVar).
func (r Reconnect) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r *Reconnect) UnmarshalText(b []byte) (err error) {
	*r, err = ParseReconnect(string(b))
	return err
}

// Delay draws the wait before attempt k.
func (r Reconnect) Delay(attempt int, rng *rand.Rand) time.Duration {
	if r.Max <= 0 {
		if attempt == 0 {
			return 0
		}
		return retryAtOnce
	}
	top := r.Max
	if attempt < 32 && r.Base<<attempt > 0 {
		top = min(top, r.Base<<attempt)
	}
	return r.Least + time.Duration(rng.Int64N(int64(top)))
}
