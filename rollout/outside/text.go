package outside

import (
	"context"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-proxy/sluice/rollout/units"
)

// mostText bounds what others say as it is shown, in characters.
const mostText = 200

// plain is what others say, fit to be shown in one line.
func plain(text string) string {
	odd := func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}
	text = strings.Join(strings.Fields(strings.Map(odd, strings.ToValidUTF8(text, "?"))), " ")
	if runes := []rune(text); len(runes) > mostText {
		text = string(runes[:mostText-1]) + "…"
	}
	return text
}

// outcome is the sentence about who did not do as asked, and what it said.
func outcome(who string, err error, said string) string {
	text := who + " " + plain(err.Error())
	if said != "" {
		text += ": " + said
	}
	return text
}

// refused is an answer that is a no, as a predicate: "exits with 3". Any other
// error is that there is no answer.
type refused string

func (r refused) Error() string { return string(r) }

// silence is that no answer came in time; it is a context.DeadlineExceeded.
type silence time.Duration

func (s silence) Error() string { return "gives no answer within " + units.Duration(s).String() }
func (s silence) Unwrap() error { return context.DeadlineExceeded }

func within(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, patience, silence(patience))
}
