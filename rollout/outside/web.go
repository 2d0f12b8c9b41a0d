package outside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// web is how URLs are asked and called.
type web struct{ transport *http.Transport }

func newWeb() web {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxResponseHeaderBytes = 64 << 10
	return web{t}
}

func (w web) close() { w.transport.CloseIdleConnections() }

// client goes through a transport. Redirects are not followed: what is sent is
// meant for one address.
func client(through http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     through,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// call sends one request, with body as JSON unless it is nil. The error is nil
// when the answer is 2xx, and refused when it is another; said is the start of
// such an answer.
func (w web) call(ctx context.Context, method, address string, body any) (said string, err error) {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return "", err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, sent)
	if err != nil {
		return "", silent(ctx, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client(w.transport).Do(req)
	if err != nil {
		return "", silent(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 == 2 {
		return "", nil
	}
	start, _ := io.ReadAll(io.LimitReader(res.Body, 4*mostText)) // what came of it
	return plain(string(start)), refused(fmt.Sprintf("answers %d", res.StatusCode))
}

// silent leaves out what net/http wraps around the cause: the whole address,
// which may hold a secret.
func silent(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Errorf("does not answer: %w", err)
}

// host is what is shown of an address.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "the URL"
	}
	return u.Host
}
