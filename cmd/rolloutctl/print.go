package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// none stands where there is no value, or where it is not known.
const none = "–"

const noService = "rolloutd has no service yet; add one to its configuration"

func (c *cli) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(c.out, format, args...)
	return err
}

func (c *cli) printJSON(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// table prints rows in aligned columns; the first one is the header.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if row[i] = clean(cell); row[i] == "" {
				row[i] = none
			}
		}
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// facts prints a table of names and values and leaves out those without value.
func facts(w io.Writer, rows [][2]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(t, "%s\t%s\n", row[0], clean(row[1])); err != nil {
			return err
		}
	}
	return t.Flush()
}

// clean makes text that others wrote harmless to a terminal and to a table.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Cf, r):
			return '?'
		}
		return r
	}, s)
}

func number[T int | uint64](n *T) string {
	if n == nil {
		return none
	}
	return fmt.Sprint(*n)
}

// optional is empty where 0 means not declared.
func optional(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func rate(f *float64) string {
	if f == nil {
		return none
	}
	return strconv.FormatFloat(math.Round(*f*10)/10, 'f', 1, 64)
}

// moment is a time of day, with the date when that is another than now's. It is in
// UTC, as in rolloutd's sentences: a screen has one time zone.
func moment(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05 MST")
	}
	return t.Format("2006-01-02 15:04:05 MST")
}

// ahead is a time to come and how far away it is.
func ahead(t *time.Time, now time.Time) string {
	if t == nil {
		return none
	}
	return fmt.Sprintf("%s (in %s)", moment(*t, now), short(t.Sub(now)))
}

// short is a duration in whole seconds, hours or days; what is over is 0s.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(d, 0).Round(time.Second)
	switch {
	case d >= 100*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= 2*day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
