package sidecar

import (
	"encoding/json"
	"net/http"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Counts are what a sidecar knows beside the gate's Status: totals since it
// started, which never fall.
type Counts struct {
	Refused     uint64 `json:"-"`           // connections refused while draining or above the limit, in place of the gate's
	Unreachable uint64 `json:"unreachable"` // connections refused because the server could not be reached
}

// Counts returns them now.
func (s *Sidecar) Counts() Counts {
	return Counts{Refused: s.refused.Load(), Unreachable: s.unreachable.Load()}
}

// Endpoint is the gate's, whose answers have the Counts as further fields.
func (s *Sidecar) Endpoint() http.Handler {
	gate := s.Gate.Endpoint()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gate.ServeHTTP(&counting{ResponseWriter: w, counts: s.Counts}, r)
	})
}

// counting adds the counts to the status that the gate writes, whole, at once.
type counting struct {
	http.ResponseWriter
	counts  func() Counts
	refused bool
}

func (c *counting) WriteHeader(code int) {
	c.refused = code != http.StatusOK
	c.ResponseWriter.WriteHeader(code)
}

func (c *counting) Write(p []byte) (int, error) {
	var status drain.Status
	if c.refused || json.Unmarshal(p, &status) != nil {
		return c.ResponseWriter.Write(p)
	}
	counts := c.counts()
	status.Refused = counts.Refused // the gate is not asked while it is known to be full
	both, err := json.Marshal(struct {
		drain.Status
		Counts
	}{status, counts})
	if err != nil {
		return 0, err
	}
	if _, err := c.ResponseWriter.Write(append(both, '\n')); err != nil {
		return 0, err
	}
	return len(p), nil
}
