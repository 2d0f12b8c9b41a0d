// Package units has the quantities in which policies and plans are written: durations,
// shares, rates, portions and the cap. Each reads and prints as people write it.
package units

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

// Portion is some of the instances of a side: a number of them, or a share that
// is rounded up to at least one. It reads and prints as "3" or "25%". The zero
// value is all of them.
type Portion struct {
	Number int
	Share  Share
}

// Of is how many of n instances the portion is, between 1 and n; of none it is 0.
func (p Portion) Of(n int) int {
	switch {
	case p.Number > 0:
		return min(p.Number, n)
	case p.Share > 0:
		return (n*int(p.Share) + int(Whole) - 1) / int(Whole)
	}
	return n
}

// IsZero reports whether the portion is everything.
func (p Portion) IsZero() bool { return p == Portion{} }

func (p Portion) String() string {
	if p.Share > 0 {
		return p.Share.String()
	}
	return strconv.Itoa(p.Number)
}

func (p Portion) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (p *Portion) UnmarshalText(b []byte) error {
	if n, err := strconv.Atoi(string(b)); err == nil && n >= 0 {
		*p = Portion{Number: n}
		return nil
	}
	var share Share
	if err := share.UnmarshalText(b); err != nil || share == 0 {
		return fmt.Errorf("%q is no number of instances; write it like 3 or 25%%", b)
	}
	*p = Portion{Share: share}
	return nil
}

// Rate is a number per second; it reads and prints as "500/s". The zero value is
// no bound.
type Rate int

func (r Rate) String() string { return strconv.Itoa(int(r)) + "/s" }

func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r *Rate) UnmarshalText(b []byte) error {
	number, ok := strings.CutSuffix(string(b), "/s")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || n > 10_000_000 {
		return fmt.Errorf("%q is no rate; write it like 500/s, between 1/s and 10000000/s", b)
	}
	*r = Rate(n)
	return nil
}
