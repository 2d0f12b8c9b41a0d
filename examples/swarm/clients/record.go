package clients

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// Kind is what happened to a client.
type Kind string

const (
	// Joined: the handshake was done and the instance had said who it is.
	Joined Kind = "joined"
	// Left: an established connection ended, by whatever cause but the end of Run.
	Left Kind = "left"
	// Refused: an attempt to connect did not succeed.
	Refused Kind = "refused"
	// Asked: the instance asked the client to come over. The connection works on.
	Asked Kind = "asked"
	// Ended: the client ended an old connection itself, since a new one serves it.
	Ended Kind = "ended"
)

// Hello is the first message of an instance on every connection.
type Hello struct {
	Instance string `json:"instance"`
	Colour   string `json:"colour"`
	Version  string `json:"version"`
	// From is the first numbered message that comes on this connection; 0 where there are none.
	From uint64 `json:"from,omitempty"`
}

// Record is one thing that happened to one client.
type Record struct {
	At     time.Time `json:"at"`
	Client int       `json:"client"`
	Kind   Kind      `json:"kind"`
	// Hello is who serves the client (Joined, Asked) or did (Left, Ended); empty when Refused.
	Hello Hello `json:"hello,omitzero"`
	// Code is the close code that a Left client was told, -1 when the connection
	// ended without one.
	Code websocket.StatusCode `json:"code,omitempty"`
	// Status is the HTTP status of a Refused attempt; 0 when there was no answer.
	Status int `json:"status,omitempty"`
	// Cause is the error behind Left and Refused.
	Cause string `json:"cause,omitempty"`
}

// Planned reports whether a disconnect was the funnel's: the instance said
// "service restart" (1012).
func (r Record) Planned() bool {
	return r.Kind == Left && r.Code == websocket.StatusServiceRestart
}

// WriteRecords writes records to a file, one JSON object a line.
func WriteRecords(path string, records []Record) error {
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	for _, r := range records {
		if err := lines.Encode(r); err != nil {
			return err
		}
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// Counts is how many clients are connected, and to what. Who comes over counts twice until
// the old connection has ended.
type Counts struct {
	Total    int            `json:"total"`
	Instance map[string]int `json:"instance"`
	Colour   map[string]int `json:"colour"`
}

// String is like "5 connected: chat-b1 2, chat-b2 3".
func (c Counts) String() string {
	var held []string
	for _, name := range slices.Sorted(maps.Keys(c.Instance)) {
		if n := c.Instance[name]; n > 0 {
			held = append(held, fmt.Sprintf("%s %d", name, n))
		}
	}
	return fmt.Sprintf("%d connected: %s", c.Total, strings.Join(held, ", "))
}

func (c *Counts) add(h Hello, n int) {
	c.Total += n
	c.Instance[h.Instance] += n
	c.Colour[h.Colour] += n
}
