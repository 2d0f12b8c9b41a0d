// Package bearer checks the token of a request, for what serves the drain
// contract or rolloutd's API.
package bearer

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// Shown reports whether a request shows the token: "Authorization: Bearer TOKEN",
// the first word in any case (RFC 9110, 11.1). Hashes are compared, so that
// neither the content nor the length of the token shows in the time it takes.
func Shown(r *http.Request, token string) bool {
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(shown)), sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
