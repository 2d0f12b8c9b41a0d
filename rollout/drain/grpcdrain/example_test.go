package grpcdrain_test

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/rollout/drain"
	"github.com/sluice-proxy/sluice/rollout/drain/grpcdrain"
)

// A grpc-go server joins in with two interceptors. On SIGTERM, or by the orders
// of the control plane, its streams end with UNAVAILABLE, a few at a time.
func ExampleStream() {
	// These lines are what an author adds.
	gate := drain.New(drain.Options{Limit: 20_000, Token: "secret"})
	srv := grpc.NewServer(
		grpc.ChainStreamInterceptor(grpcdrain.Stream(gate)),
		grpc.ChainUnaryInterceptor(grpcdrain.Unary(gate)),
	)
	admin := &http.Server{Addr: "127.0.0.1:9100", Handler: gate.Endpoint()}
	shutdown := func(grace context.Context) error { // on SIGTERM
		defer admin.Close()
		defer srv.GracefulStop() // the last streams' ends are on their way
		return gate.Shutdown(grace)
	}

	srv.RegisterService(handlers{talk: talk}.desc(), nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // and admin.ListenAndServe()

	cc, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cc.Close()
	stream, err := cc.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Chat/Talk")
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = stream.SendMsg(wrapperspb.String("hello"))
	fmt.Println(stream.RecvMsg(new(text)), gate.Status().Active)
	empty := make(chan error, 1)
	go func() { empty <- shutdown(context.Background()) }()
	err = stream.RecvMsg(new(text))
	reason, _ := grpcdrain.Reason(err)
	fmt.Println(status.Code(err), reason)
	fmt.Println(<-empty, <-served)
	// Output:
	// <nil> 1
	// Unavailable EVICTED
	// <nil> <nil>
}
