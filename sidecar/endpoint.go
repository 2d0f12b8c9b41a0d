package sidecar

import (
	"encoding/json"
	"net/http"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
)

// Status is the gate's, with those refused whose server could not be reached and
// the requests that are under way and not held as connections.
func (s *Sidecar) Status() contract.Status {
	status := s.Gate.Status()
	s.complete(&status)
	return status
}

func (s *Sidecar) complete(status *contract.Status) {
	status.Refused += s.unreachable.Load()
	s.requests.in(status)
	if status.State == contract.Drained && status.Requests > 0 {
		status.State = contract.Draining
	}
}

// Unreachable is the total of connections refused because the server could not
// be reached; Status counts them in Refused, too.
func (s *Sidecar) Unreachable() uint64 { return s.unreachable.Load() }

// Requests is how many are under way and not held as connections.
func (s *Sidecar) Requests() int {
	s.requests.mu.Lock()
	defer s.requests.mu.Unlock()
	return s.requests.n
}

// Endpoint is the gate's, whose answers have "unreachable" as a further field.
func (s *Sidecar) Endpoint() http.Handler {
	gate := s.Gate.Endpoint()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gate.ServeHTTP(&counting{ResponseWriter: w, of: s}, r)
	})
}

// counting adds the sidecar's counts to the status that the gate writes, whole, at
// once.
type counting struct {
	http.ResponseWriter
	of      *Sidecar
	refused bool // the request, not the connection
}

func (c *counting) WriteHeader(code int) {
	c.refused = code != http.StatusOK
	c.ResponseWriter.WriteHeader(code)
}

func (c *counting) Write(p []byte) (int, error) {
	var status contract.Status
	if c.refused || json.Unmarshal(p, &status) != nil {
		return c.ResponseWriter.Write(p)
	}
	c.of.complete(&status)
	both, err := json.Marshal(struct {
		contract.Status
		Unreachable uint64 `json:"unreachable"`
	}{status, c.of.Unreachable()})
	if err != nil {
		return 0, err
	}
	if _, err := c.ResponseWriter.Write(append(both, '\n')); err != nil {
		return 0, err
	}
	return len(p), nil
}
