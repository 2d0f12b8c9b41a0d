package outside

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// parsePatience bounds the parsing of one query.
const parsePatience = 2 * time.Second

// parser asks Prometheus whether it understands a query, which it does not evaluate.
type parser struct {
	client *http.Client // nil: there is no Prometheus
	base   string
}

func (p Prometheus) parsing(through http.RoundTripper) parser {
	if p.Address == "" {
		return parser{}
	}
	return parser{client: client(strict{next: through, token: p.shown}), base: strings.TrimSuffix(p.Address, "/") + "/api/v1/parse_query?query="}
}

// Parse asks Prometheus whether it understands the query. fault is what is wrong with
// it; unchecked is why nobody knows. Both are empty when it does.
func (g *Gates) Parse(ctx context.Context, query string) (fault, unchecked string) {
	if g.parser.client == nil {
		return "", "the configuration does not say where Prometheus is"
	}
	ctx, cancel := within(ctx, parsePatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.parser.base+url.QueryEscape(query), nil)
	if err != nil {
		return "", err.Error()
	}
	res, err := g.parser.client.Do(req)
	if err != nil {
		return "", outcome("Prometheus", silent(ctx, err), "")
	}
	defer res.Body.Close()
	var answer struct {
		Status    string `json:"status"`
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
	}
	err = json.NewDecoder(res.Body).Decode(&answer)
	switch {
	case err == nil && res.StatusCode == http.StatusOK && answer.Status == "success":
		return "", ""
	case err == nil && res.StatusCode == http.StatusBadRequest && answer.Status == "error" && answer.ErrorType == "bad_data" && strings.Contains(answer.Error, "parse error"):
		return "Prometheus cannot parse it: " + plain(strings.TrimPrefix(answer.Error, `invalid parameter "query": `)), ""
	}
	return "", fmt.Sprintf("Prometheus does not say whether it can parse it (it answers %d)", res.StatusCode)
}
