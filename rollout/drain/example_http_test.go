package drain_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// A net/http server joins in around its handler, here one that streams events; a
// WebSocket library's handler is wrapped in the same way, and its clients are told
// 1012 between two frames. On SIGTERM, or by the orders of the control plane, its
// connections go a few at a time.
func ExampleGate_Handler() {
	feed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: hello\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // the client has gone or, with drain.ErrEvicted as the cause, is to go
	})

	// These lines are what an author adds.
	gate := drain.New(drain.Options{
		Limit: 20_000,
		Token: "secret",
		Pass:  func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	})
	srv := &http.Server{Handler: gate.Handler(feed)}
	admin := &http.Server{Handler: gate.Endpoint()}
	serve := func(ctx context.Context, ln, adminLn net.Listener) error {
		go func() { _ = srv.Serve(ln) }()
		go func() { _ = admin.Serve(adminLn) }()
		<-ctx.Done() // from signal.NotifyContext(ctx, syscall.SIGTERM)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
		defer cancel()
		defer admin.Close()
		defer srv.Close()
		if err := gate.Shutdown(grace); err != nil {
			return err
		}
		return srv.Shutdown(grace) // the end of the last responses may still be under way
	}

	ctx, sigterm := context.WithCancel(context.Background())
	defer sigterm()
	ln, adminLn := loopback(), loopback()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, ln, adminLn) }()

	res, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	fmt.Println(gate.Status().State, gate.Status().Active)
	sigterm()
	events, err := io.ReadAll(res.Body)
	fmt.Printf("%q %v\n", events, err)
	fmt.Println(<-served, gate.Status().State)
	// Output:
	// serving 1
	// "data: hello\n\n" <nil>
	// <nil> drained
}

// The application tells a returning client from a new one, here by the id of the
// session that it resumes, so that the control plane knows who is still out.
func ExampleReturned() {
	gate := drain.New(drain.Options{CountsReturns: true})
	handler := gate.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("resume") {
			drain.Returned(r)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: hello\n\n")
	}))
	for _, target := range []string{"/", "/?resume=4711"} {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, target, nil))
	}
	s := gate.Status()
	fmt.Println(s.Accepted, *s.Returned)
	// Output: 2 1
}

func loopback() net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return ln
}
