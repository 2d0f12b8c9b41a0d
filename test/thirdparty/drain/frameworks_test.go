package drain_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"connectrpc.com/connect"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/labstack/echo/v4"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// feed is an event stream that waits for news until its client goes.
func feed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "data: hello\n\n")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// A stream of each framework, with the obvious code, ends regularly when it is let go.
func TestEveryFramework(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.GET("/", func(c *gin.Context) {
		first := true
		c.Stream(func(w io.Writer) bool {
			if first {
				c.SSEvent("message", "hello")
				first = false
				return true
			}
			<-c.Request.Context().Done()
			return false
		})
	})
	e := echo.New()
	e.GET("/", func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentType, "text/event-stream")
		_, _ = io.WriteString(c.Response(), "data: hello\n\n")
		c.Response().Flush()
		<-c.Request().Context().Done()
		return nil
	})
	r := chi.NewRouter()
	r.Use(middleware.RequestID, middleware.Recoverer, middleware.Compress(5))
	r.Get("/", feed)
	behind := httptest.NewServer(http.HandlerFunc(feed))
	t.Cleanup(behind.Close)
	to, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]http.Handler{"gin": g, "echo": e, "chi": r, "httputil.ReverseProxy": httputil.NewSingleHostReverseProxy(to)} {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, patient, plain, h)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.srv.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := i.srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			events := bufio.NewReader(res.Body)
			if _, err := events.ReadString('\n'); err != nil || res.StatusCode != http.StatusOK {
				t.Fatal(res.Status, err)
			}
			if s := i.Status(); s.Active != 1 || s.Requests != 0 {
				t.Errorf("%+v, want 1 active", s)
			}
			i.order(t, 1, 0)
			if _, err := io.ReadAll(events); err != nil && name != "httputil.ReverseProxy" { // which aborts what it cannot complete
				t.Errorf("the stream ended with %v", err)
			}
			i.emptied(t)
			if s := i.Status(); s.Evicted != 1 {
				t.Errorf("%+v, want 1 evicted", s)
			}
		})
	}
}

// Streams of connect-go, in each of its protocols, end with unavailable, which clients try
// again, and a ticket; a call under way is answered.
func TestConnect(t *testing.T) {
	type text = wrapperspb.StringValue
	begun, goOn := make(chan bool), make(chan bool)
	mux := http.NewServeMux()
	mux.Handle("/t.Feed/Watch", connect.NewServerStreamHandler("/t.Feed/Watch", func(ctx context.Context, r *connect.Request[text], s *connect.ServerStream[text]) error {
		_ = s.Send(wrapperspb.String("hello"))
		<-ctx.Done()
		return ctx.Err()
	}))
	mux.Handle("/t.Feed/Pay", connect.NewUnaryHandler("/t.Feed/Pay", func(ctx context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		begun <- true
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-goOn:
			return connect.NewResponse(wrapperspb.String("paid")), nil
		}
	}))
	for name, protocol := range map[string][]connect.ClientOption{"Connect": nil, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}} {
		t.Run(name, func(t *testing.T) {
			opt := patient
			opt.TicketKey = "a key of the fleet's"
			i := newInstance(t, opt, func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() }, mux)
			watch := connect.NewClient[text, text](i.srv.Client(), i.srv.URL+"/t.Feed/Watch", protocol...)
			pay := connect.NewClient[text, text](i.srv.Client(), i.srv.URL+"/t.Feed/Pay", protocol...)
			stream, err := watch.CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			if !stream.Receive() {
				t.Fatal(stream.Err())
			}
			paid := make(chan error, 1)
			go func() {
				_, err := pay.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
				paid <- err
			}()
			<-begun
			i.order(t, 1, 0)
			if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable {
				t.Errorf("the stream ended with %v, want unavailable", stream.Err())
			}
			told, is := errors.AsType[*connect.Error](stream.Err())
			if !is || len(told.Meta().Get(ticket.Word)) != len("k3v9x2pq") {
				t.Errorf("the stream ended with %v, %+v, want a ticket", stream.Err(), told)
			}
			refused, err := watch.CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
			if err == nil {
				refused.Receive()
				err = refused.Err()
				_ = refused.Close()
			}
			if connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("a new stream: %v, want unavailable", err)
			}
			if s := i.Status(); s.State != contract.Draining || s.Requests != 1 {
				t.Errorf("%+v, want the call under way", s)
			}
			goOn <- true
			if err := <-paid; err != nil {
				t.Errorf("the call under way: %v", err)
			}
			i.emptied(t)
		})
	}
}
