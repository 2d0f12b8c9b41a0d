package grpcdrain

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/rollout/drain"
)

// Domain is that of the errdetails.ErrorInfo by which a client can tell these
// ends from a failure. Its Reason is one of those below.
const Domain = "sluice-proxy.github.com"

// Reasons for UNAVAILABLE.
const (
	Evicted  = "EVICTED"  // the stream was let go: open it again
	Draining = "DRAINING" // refused; errdetails.RetryInfo has the gate's RetryAfter
	Full     = "FULL"     // refused likewise, above the gate's limit
)

// Reason is why a call ended, if err says that a gate ended or refused it.
func Reason(err error) (reason string, ok bool) {
	for _, d := range status.Convert(err).Details() {
		if info, is := d.(*errdetails.ErrorInfo); is && info.Domain == Domain {
			return info.Reason, true
		}
	}
	return "", false
}

// Unary refuses unary calls with UNAVAILABLE while the gate is draining. It
// counts none: a call that has begun ends by itself, and grpc.Server's
// GracefulStop waits for it.
func Unary(g *drain.Gate) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if !passes(info.FullMethod) && g.Drains(drain.Hooks{Remote: remote(ctx), Node: node(ctx)}) {
			return nil, refused(g, drain.ErrDraining)
		}
		return handler(ctx, req)
	}
}

// passes: whoever asks for health or what there is must hear it while draining, too.
func passes(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.")
}

var errEvicted = unavailable(drain.ErrEvicted, Evicted)

// refused is UNAVAILABLE above the limit, too, and not RESOURCE_EXHAUSTED: another
// instance has room, and UNAVAILABLE is what clients and proxies try again.
func refused(g *drain.Gate, err error) error {
	reason := Draining
	if errors.Is(err, drain.ErrFull) {
		reason = Full
	}
	return unavailable(err, reason, &errdetails.RetryInfo{RetryDelay: durationpb.New(g.RetryAfter())})
}

// end is an error of the gate with its status.
type end struct {
	error
	status *status.Status
}

func (e *end) GRPCStatus() *status.Status { return e.status }
func (e *end) Unwrap() error              { return e.error }

func unavailable(err error, reason string, more ...protoadapt.MessageV1) error {
	plain := status.New(codes.Unavailable, err.Error())
	s, broken := plain.WithDetails(append(more, &errdetails.ErrorInfo{Domain: Domain, Reason: reason})...)
	if broken != nil {
		s = plain
	}
	return &end{err, s}
}
