package conform

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/rollout/drain/contract"
	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// unavailable is the gRPC status of who is refused or let go.
const unavailable = 14

// stream opens a gRPC stream on the one HTTP/2 connection of the check. It has sent one
// empty message, which every message type can be, and stays open on this side; with the
// query one-request the client's side ends. Whether it was let in shows later: a server
// that has nothing to say sends no headers.
func (in *instance) stream(ctx context.Context, node string) (*client, error) {
	if in.streams == nil {
		h2 := new(http.Protocols)
		h2.SetUnencryptedHTTP2(true)
		in.streams = &http.Transport{Protocols: h2, DialContext: in.opt.Dial}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+in.connect.Host+in.connect.Path, body)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	if node != "" {
		req.Header.Set(contract.NodeHeader, node)
	}
	if in.ticket != "" {
		req.Header.Set(ticket.Word, in.ticket)
	}
	c := &client{node: node, ended: make(chan struct{}), quit: func() {
		cancel()
		_ = send.CloseWithError(context.Canceled) // the transport sees no cancel while it waits for more of the body
	}}
	go func() {
		defer close(c.ended)
		defer cancel()
		defer body.Close()
		c.ending = in.run(req)
	}()
	go func() {
		_, _ = send.Write(make([]byte, 5))
		if in.connect.Query().Has("one-request") {
			_ = send.Close()
		}
	}()
	return c, nil
}

// run reads a stream to its end.
func (in *instance) run(req *http.Request) ending {
	res, err := in.streams.RoundTrip(req)
	if err != nil {
		return ending{at: time.Now(), err: err}
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	e := ending{at: time.Now(), err: err, ticket: cmp.Or(res.Trailer.Get(ticket.Word), res.Header.Get(ticket.Word))}
	status := res.Trailer.Get("Grpc-Status")
	if status == "" {
		status = res.Header.Get("Grpc-Status") // of a stream without messages
	}
	if code, bad := strconv.Atoi(status); bad == nil {
		e.code = code
	} else if err == nil {
		e.err = fmt.Errorf("HTTP status %d, and no grpc-status", res.StatusCode)
	}
	return e
}

// refusedStream is a turnedAway if the instance ends the stream at once, as refused.
func (c *client) refusedStream() error {
	defer c.quit()
	select {
	case <-c.ended:
	case <-time.After(time.Second):
		return fmt.Errorf("a new stream while draining is still open after 1s, want the status %d", unavailable)
	}
	switch {
	case c.ending.err != nil:
		return fmt.Errorf("a new stream while draining fails: %w; want the status %d", c.ending.err, unavailable)
	case c.ending.code != unavailable:
		return fmt.Errorf("a new stream while draining ends with the status %d, want %d", c.ending.code, unavailable)
	}
	return &turnedAway{err: fmt.Errorf("the status %d", unavailable)}
}
