package outside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/sluice-proxy/sluice/rollout/observed"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

// Prometheus is who answers the queries of gates.
type Prometheus struct {
	// Address is an http:// or https:// URL, with the path in front of /api/v1 if
	// there is one. Empty: there is none, and gates with a query stay closed.
	Address string
	// Token is the bearer token that is shown to it; empty: none. TokenNow, if set, is
	// asked for that of each request, in place of Token: it may be replaced.
	Token    string
	TokenNow func() string
}

// shown is the token of a request that begins now.
func (p Prometheus) shown() string {
	if p.TokenNow != nil {
		return p.TokenNow()
	}
	return p.Token
}

// connect returns nil if there is none.
func (p Prometheus) connect(through http.RoundTripper) (v1.API, error) {
	if p.Address == "" {
		return nil, nil
	}
	c, err := api.NewClient(api.Config{Address: p.Address, Client: client(strict{next: through, token: p.shown})})
	if err != nil {
		return nil, fmt.Errorf("prometheus.address: %w", err)
	}
	return v1.NewAPI(c), nil
}

// query asks for the values of now. The reading's Text says what was seen.
func query(ctx context.Context, prometheus v1.API, gate policy.Gate) observed.Reading {
	if prometheus == nil {
		return unanswered("it asks Prometheus, but the configuration does not say where that is; add prometheus: {address: ...}")
	}
	// Prometheus takes no fractions of a second here; ctx is what counts.
	patience := gate.Within().Truncate(time.Second) + time.Second
	value, warnings, _, err := prometheus.Query(ctx, gate.Query, time.Time{}, v1.WithTimeout(patience))
	if err != nil {
		return unanswered(refusal(ctx, err))
	}
	r := judge(gate, value)
	if len(warnings) > 0 {
		r.Text += " (Prometheus warns: " + plain(strings.Join(warnings, "; ")) + ")"
	}
	return r
}

// refusal says why there is no value.
func refusal(ctx context.Context, err error) string {
	e, ok := errors.AsType[*v1.Error](err)
	switch {
	case !ok:
		return outcome("Prometheus", silent(ctx, err), "")
	case e.Type == v1.ErrBadData || e.Type == v1.ErrExec:
		return "Prometheus cannot answer the query: " + plain(e.Msg)
	case e.Type == v1.ErrBadResponse:
		return "the answer of Prometheus cannot be read: " + plain(e.Msg)
	}
	return "Prometheus answers: " + plain(strings.TrimSuffix(e.Msg+": "+e.Detail, ": "))
}

// mostAnswer is how many bytes of an answer are read.
const mostAnswer = 1 << 20

// strict shows the token, and refuses an answer that is too large or in which a
// value is missing: the client library reads null, or nothing at all, as 0.
type strict struct {
	next  http.RoundTripper
	token func() string
}

func (s strict) RoundTrip(req *http.Request) (*http.Response, error) {
	if token := s.token(); token != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, mostAnswer+1))
	_ = res.Body.Close()
	switch {
	case err != nil:
		return nil, err
	case len(body) > mostAnswer:
		return nil, fmt.Errorf("the answer is larger than %d bytes; ask for fewer series", mostAnswer)
	case !complete(body):
		return nil, errors.New("the answer has a sample without a value")
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

// complete checks that every sample of a vector, and a scalar, is a time and a
// text. Whatever else may be wrong the client library notices itself.
func complete(body []byte) bool {
	var answer struct {
		Data struct {
			Type   model.ValueType `json:"resultType"`
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}
	_ = json.Unmarshal(body, &answer)
	switch result := answer.Data.Result; answer.Data.Type {
	case model.ValScalar:
		return isValue(result)
	case model.ValVector:
		var samples []struct{ Value, Histogram json.RawMessage }
		_ = json.Unmarshal(result, &samples)
		for _, s := range samples {
			if len(s.Histogram) == 0 && !isValue(s.Value) {
				return false
			}
		}
	}
	return true
}

func isValue(raw json.RawMessage) bool {
	var pair []json.RawMessage
	return json.Unmarshal(raw, &pair) == nil && len(pair) == 2 && len(pair[1]) > 0 && pair[1][0] == '"'
}
