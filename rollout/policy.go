// Package rollout decides what should happen: which colour gets new
// connections, and how many of the old ones may go now. Step and everything
// below it is pure; Controller is the one loop with effects.
package rollout

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and prints as "3s" in YAML and JSON.
type Duration time.Duration

// D returns the plain duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string {
	s := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration; write it like 3s or 2m30s", b)
	}
	*d = Duration(v)
	return nil
}

// Share is a part of new connections in ten-thousandths; it reads and prints as
// "5%" or "0.25%". The zero value is no share.
type Share int

// Whole is the share of everything.
const Whole Share = 10_000

func (s Share) String() string {
	return strconv.FormatFloat(float64(s)/100, 'f', -1, 64) + "%"
}

func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *Share) UnmarshalText(b []byte) error {
	number, ok := strings.CutSuffix(strings.TrimSpace(string(b)), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || math.IsNaN(f) || f < 0 || f > 100 {
		return fmt.Errorf("%q is no share; write it like 5%%, between 0%% and 100%%", b)
	}
	*s = Share(math.Round(f * 100))
	return nil
}

// Funnel is the cap: in any window of length Every, at most Close connections
// are closed across the whole fleet (one more at a window's edge).
type Funnel struct {
	Close int      `json:"close" yaml:"close"`
	Every Duration `json:"every" yaml:"every"`
}

func (f Funnel) String() string { return fmt.Sprintf("%d/%s", f.Close, f.Every) }

// ParseFunnel reads "500/3s".
func ParseFunnel(s string) (Funnel, error) {
	n, every, ok := strings.Cut(s, "/")
	var f Funnel
	var err error
	if f.Close, err = strconv.Atoi(n); !ok || err != nil {
		return Funnel{}, fmt.Errorf("%q is no pace; write it like 500/3s", s)
	}
	if err := f.Every.UnmarshalText([]byte(every)); err != nil {
		return Funnel{}, fmt.Errorf("%q is no pace; write it like 500/3s", s)
	}
	return f, f.Check()
}

// Check reports what is wrong with the cap, in one sentence.
func (f Funnel) Check() error {
	switch {
	case f.Close < 1:
		return fmt.Errorf("close is %d; a step must close at least 1 connection", f.Close)
	case f.Close > 10_000_000:
		return fmt.Errorf("close is %d; the most is 10000000", f.Close)
	case f.Every.D() < 100*time.Millisecond || f.Every.D() > time.Hour:
		return fmt.Errorf("every is %s; a step lasts between 100ms and 1h", f.Every)
	}
	return nil
}

// Policy is how a service is promoted.
type Policy struct {
	// Funnel is the cap. Default 100 every 1s.
	Funnel Funnel `json:"funnel" yaml:"funnel"`
	// Grace is how long connections may end by themselves, once old instances
	// refuse new ones, before the funnel starts. Default 0.
	Grace Duration `json:"grace" yaml:"grace"`
	// Canary is the share of new connections that the target gets first, for
	// Soak. 0 is no canary.
	Canary Share `json:"canary" yaml:"canary"`
	// Soak is how long the canary share is held before the rest follows.
	Soak Duration `json:"soak" yaml:"soak"`
	// ReturnTimeout is how long an evicted client may take to come back before
	// it is counted as never back; the rollout soaks at most that long after
	// the last eviction. Default 1m.
	ReturnTimeout Duration `json:"return_timeout" yaml:"return_timeout"`
}

// DefaultPolicy is what a service without a policy gets.
func DefaultPolicy() Policy {
	return Policy{
		Funnel:        Funnel{Close: 100, Every: Duration(time.Second)},
		ReturnTimeout: Duration(time.Minute),
	}
}

// Check reports everything that is wrong with the policy: key → sentence.
func (p Policy) Check() map[string]error {
	bad := map[string]error{}
	if err := p.Funnel.Check(); err != nil {
		bad["funnel"] = err
	}
	if p.Grace < 0 {
		bad["grace"] = fmt.Errorf("grace is %s; it must not be negative", p.Grace)
	}
	if p.Soak < 0 {
		bad["soak"] = fmt.Errorf("soak is %s; it must not be negative", p.Soak)
	}
	if p.Soak > 0 && p.Canary == 0 {
		bad["soak"] = fmt.Errorf("soak is %s but there is no canary to soak; set canary, such as 5%%", p.Soak)
	}
	if p.Canary >= Whole {
		bad["canary"] = fmt.Errorf("canary is %s; leave it out to send everything to the target at once", p.Canary)
	}
	if p.ReturnTimeout < 0 {
		bad["return_timeout"] = fmt.Errorf("return_timeout is %s; it must not be negative", p.ReturnTimeout)
	}
	return bad
}

// Overrides are the parts of a policy that an operator sets for one promotion;
// nil leaves the policy's value.
type Overrides struct {
	Close  *int      `json:"close,omitempty"`
	Every  *Duration `json:"every,omitempty"`
	Grace  *Duration `json:"grace,omitempty"`
	Canary *Share    `json:"canary,omitempty"`
	Soak   *Duration `json:"soak,omitempty"`
}

// Over returns the policy with the overrides laid over it.
func (o Overrides) Over(p Policy) Policy {
	set(&p.Funnel.Close, o.Close)
	set(&p.Funnel.Every, o.Every)
	set(&p.Grace, o.Grace)
	set(&p.Canary, o.Canary)
	set(&p.Soak, o.Soak)
	return p
}

func set[T any](field *T, v *T) {
	if v != nil {
		*field = *v
	}
}
