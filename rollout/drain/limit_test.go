package drain

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Above the limit a request gets 503 with Retry-After, and those held go on.
func TestHandlerRefusesAboveTheLimit(t *testing.T) {
	g := New(Options{Limit: 2, RetryAfter: 1500 * time.Millisecond})
	hold, held := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(g.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { held <- struct{}{}; <-hold })))
	defer srv.Close()
	get := func() *http.Response {
		r, _ := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, srv.URL, nil)
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Error(err)
			return new(http.Response)
		}
		_ = res.Body.Close()
		return res
	}
	codes := make(chan int)
	for range 2 {
		go func() { codes <- get().StatusCode }()
		<-held
	}
	for range 3 {
		if res := get(); res.StatusCode != 503 || res.Header.Get("Retry-After") != "2" || !res.Close {
			t.Errorf("above the limit: %d, Retry-After %q, closed %v; want 503, 2 and closed", res.StatusCode, res.Header.Get("Retry-After"), res.Close)
		}
	}
	if s := g.Status(); s.Limit != 2 || s.Requests != 2 {
		t.Errorf("status %+v, want 2 requests of 2", s)
	}
	close(hold)
	for range 2 {
		if code := <-codes; code != 200 {
			t.Errorf("a held request got %d", code)
		}
	}
}
