package drain

import (
	"errors"
	"fmt"
	"net"
)

// Errors that tell why a connection was refused or has ended.
var (
	// ErrDraining: refused because the instance is letting its connections go.
	ErrDraining = errors.New("draining: new connections are refused; connect to another instance")
	// ErrFull: refused because Options.Limit connections are held.
	ErrFull = errors.New("full: the limit of connections is reached; connect to another instance")
	// ErrEvicted is the cause (context.Cause) of the context of a plain or
	// streaming request that the funnel ends, and wrapped by the error of what is
	// written after a goodbye.
	ErrEvicted = errors.New("evicted: the instance lets its connections go")
)

// Errors of connections that were let go.
var (
	errGoodbye = fmt.Errorf("write after the goodbye: %w", ErrEvicted)
	errForced  = fmt.Errorf("%w, and ended after CloseWait: %w", ErrEvicted, net.ErrClosed)
)
