package units

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Window is the most clients that may be on their way at once. It reads and prints as
// 3000, auto or none; 0 reads as none. The zero value is auto.
type Window int

const (
	// Auto is a bound that follows from the cap and from how long clients take.
	Auto Window = 0
	// NoWindow is no bound.
	NoWindow Window = -1
)

func (w Window) String() string {
	switch {
	case w == Auto:
		return "auto"
	case w < 0:
		return "none"
	}
	return strconv.Itoa(int(w))
}

func (w *Window) UnmarshalText(b []byte) error {
	n, err := strconv.Atoi(string(b))
	switch text := string(b); {
	case text == "auto":
		*w = Auto
	case text == "none", err == nil && n == 0:
		*w = NoWindow
	case err == nil && n > 0:
		*w = Window(n)
	default:
		return fmt.Errorf("%q is no window; write a number of clients like 3000, or auto, or none", b)
	}
	return nil
}

// MarshalJSON is a JSON number where the window is one.
func (w Window) MarshalJSON() ([]byte, error) {
	if w > 0 {
		return []byte(w.String()), nil
	}
	return json.Marshal(w.String())
}

func (w *Window) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return w.UnmarshalText(b)
	}
	if text != "auto" && text != "none" {
		return fmt.Errorf("%q is no window; write a number of clients like 3000, or \"auto\", or \"none\"", text)
	}
	return w.UnmarshalText([]byte(text))
}
