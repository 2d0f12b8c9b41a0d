package drain

import (
	"encoding/json"
	"net/http"
)

// Guard serves next to those whom Endpoint answers, and tells the others why not as
// Endpoint does: for what an instance offers beside the contract.
func (g *Gate) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, err := g.allowed(r)
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		if code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
	})
}
