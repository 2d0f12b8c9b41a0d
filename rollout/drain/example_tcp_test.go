package drain_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// A raw TCP server joins in around its listener.
func ExampleGate_Listener() {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	gate := drain.New(drain.Options{Limit: 20_000})
	ln := gate.Listener(raw)
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()

	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = io.WriteString(client, "hello")
	_, _ = io.ReadFull(client, make([]byte, 5))

	// On SIGTERM:
	ended := make(chan error, 1)
	go func() { ended <- gate.Shutdown(context.Background()) }()
	rest, err := io.ReadAll(client)
	_ = client.Close()
	fmt.Println(len(rest), err, <-ended)
	// Output: 0 <nil> <nil>
}
