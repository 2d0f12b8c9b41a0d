package state

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Message is what an operator says about a command: one line for the rollout's
// history, such as a ticket and a name. Nobody has proven who said it. Empty:
// nothing was said.
type Message string

// mostMessage bounds a message, in bytes.
const mostMessage = 200

// Check says what is wrong with a message, which comes from outside and is stored.
func (m Message) Check() error {
	if len(m) > mostMessage {
		return fmt.Errorf("the message has %d bytes; the most is %d", len(m), mostMessage)
	}
	for _, r := range string(m) {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return fmt.Errorf("the message has the character %q; write one line of plain text", r)
		}
	}
	return nil
}

// About is the event of the command with what was said.
func (m Message) About(event string) string {
	if m == "" {
		return event
	}
	return event + ", with the message: " + string(m)
}
