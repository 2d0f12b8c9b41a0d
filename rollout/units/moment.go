package units

import (
	"time"
)

// Latest is the last of some moments; the zero value of none.
func Latest(times ...time.Time) (last time.Time) {
	for _, t := range times {
		if t.After(last) {
			last = t
		}
	}
	return last
}
