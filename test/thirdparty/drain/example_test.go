package drain_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// A net/http server with any WebSocket library joins in around its handler; its
// clients are told 1012, a few at a time.
func Example_webSocket() {
	chat := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	})

	// These lines are what an author adds.
	gate := drain.New(drain.Options{Limit: 20_000, Token: "secret"})
	srv := &http.Server{Handler: gate.Handler(chat)}
	admin := &http.Server{Handler: gate.Endpoint()}
	serve := func(ctx context.Context, ln, adminLn net.Listener) error {
		go func() { _ = srv.Serve(ln) }()
		go func() { _ = admin.Serve(adminLn) }()
		<-ctx.Done() // from signal.NotifyContext(ctx, syscall.SIGTERM)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
		defer cancel()
		defer admin.Close()
		defer srv.Close()
		return gate.Shutdown(grace)
	}

	ctx, sigterm := context.WithCancel(context.Background())
	defer sigterm()
	ln, adminLn := loopback(), loopback()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, ln, adminLn) }()

	client, _, err := websocket.Dial(context.Background(), "ws://"+ln.Addr().String(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.CloseNow()
	fmt.Println(gate.Status().State, gate.Status().Active)
	sigterm()
	_, _, err = client.Read(context.Background())
	fmt.Println(websocket.CloseStatus(err))
	fmt.Println(<-served, gate.Status().State)
	// Output:
	// serving 1
	// StatusServiceRestart
	// <nil> drained
}

func loopback() net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return ln
}
