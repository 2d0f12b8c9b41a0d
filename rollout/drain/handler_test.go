package drain_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// get starts a streaming request and returns its body after the first line.
func (i *instance) get(t *testing.T, path string) (*http.Response, *bufio.Reader) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := i.srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	body := bufio.NewReader(res.Body)
	if line, err := body.ReadString('\n'); err != nil || line != "data: hello\n" {
		t.Fatalf("the first event is %q, %v", line, err)
	}
	return res, body
}

func hello(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "data: hello\n")
	w.(http.Flusher).Flush()
}

func TestStreamingResponseEnds(t *testing.T) {
	for name, how := range map[string]func(*httptest.Server){"http1": plain, "http2": http2} {
		t.Run(name, func(t *testing.T) {
			causes := make(chan error, 2)
			i := newInstance(t, patient, how, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				hello(w)
				<-r.Context().Done()
				causes <- context.Cause(r.Context())
				_, _ = io.WriteString(w, "data: goodbye\n")
			}))
			ended := make(chan string, 2)
			for range 2 {
				_, body := i.get(t, "/")
				go func() {
					rest, err := io.ReadAll(body)
					ended <- fmt.Sprint(string(rest), err)
				}()
			}
			i.order(t, 1, 1)
			if got := <-ended; got != "data: goodbye\n<nil>" {
				t.Errorf("the response ended with %q, want its regular end", got)
			}
			if cause := <-causes; cause != drain.ErrEvicted {
				t.Errorf("the cause is %v, want ErrEvicted", cause)
			}
			select {
			case got := <-ended:
				t.Errorf("the other response ended too: %q", got)
			default:
			}
			res, err := i.srv.Client().Get(i.srv.URL)
			if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" {
				t.Errorf("a new request: %v, %v; want 503 with Retry-After", res, err)
			}
			_ = res.Body.Close()
			i.order(t, 2, 0)
			<-ended
			i.emptied(t)
		})
	}
}

// A handler that ignores its context has its writes failed after CloseWait.
func TestHandlerThatIgnoresEviction(t *testing.T) {
	for name, how := range map[string]func(*httptest.Server){"http1": plain, "http2": http2} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, drain.Options{CloseWait: 50 * time.Millisecond}, how, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				hello(w)
				c := http.NewResponseController(w)
				for c.Flush() == nil {
					if _, err := io.WriteString(w, "data: more\n"); err != nil {
						return
					}
				}
			}))
			_, body := i.get(t, "/")
			i.order(t, 1, 0)
			if _, err := io.Copy(io.Discard, body); err == nil {
				t.Error("the response ended regularly, want it cut off")
			}
			i.emptied(t)
		})
	}
}

func TestOtherUpgradesEndWithFIN(t *testing.T) {
	i := newInstance(t, patient, plain, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = brw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nhello\n")
		_ = brw.Flush()
		_, _ = io.Copy(io.Discard, brw) // until the client closes
	}))
	c := i.rawUpgrade(t, "raw")
	defer c.Close()
	i.order(t, 1, 0)
	b, err := io.ReadAll(c)
	if err != nil || string(b[len(b)-6:]) != "hello\n" {
		t.Errorf("the client read %q, %v; want everything and then the end", b, err)
	}
	_ = c.Close()
	i.emptied(t)
}

func TestReturnedThroughTheRequest(t *testing.T) {
	i := newInstance(t, patient, plain, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/again" {
			drain.Returned(r)
		}
		hello(w)
	}))
	drain.Returned(httptest.NewRequest(http.MethodGet, "/", nil)) // of no gate: nothing
	i.get(t, "/")
	if s := i.Status(); s.Returned != nil {
		t.Errorf("returned is %d before it was ever said, want null", *s.Returned)
	}
	i.get(t, "/again")
	if s := i.Status(); s.Returned == nil || *s.Returned != 1 || s.Accepted != 2 {
		t.Errorf("status %+v, want 1 returned of 2", s)
	}
}
