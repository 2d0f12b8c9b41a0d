package drain_test

import (
	"context"
	"fmt"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// session stands for a connection that a server owns in its own way: a gRPC
// stream, a QUIC connection, a game's socket.
type session struct{ goodbye chan string }

// A server that owns its connections asks the gate for each, says how to end
// one, and tells when it has ended. For a gRPC stream the goodbye is the status
// UNAVAILABLE.
func ExampleGate_Admit() {
	gate := drain.New(drain.Options{})
	s := &session{goodbye: make(chan string, 1)}

	conn, err := gate.Admit(func() { s.goodbye <- "please connect again" })
	if err != nil { // drain.ErrDraining or drain.ErrFull
		fmt.Println(err)
		return
	}
	go func() {
		defer conn.Done()
		fmt.Println("server:", <-s.goodbye) // it serves until then
	}()

	// On SIGTERM:
	fmt.Println(gate.Shutdown(context.Background()), gate.Status().Evicted)
	// Output:
	// server: please connect again
	// <nil> 1
}
