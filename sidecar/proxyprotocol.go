package sidecar

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// ProxyProtocol is where HAProxy's PROXY header stands, in which a proxy says whose
// connection it passes on. The zero value is nowhere.
type ProxyProtocol struct {
	// In: each client's connection begins with one, of version 1 or 2, or is closed. Who
	// can connect is believed.
	In bool
	// Out is the version of the one that the server hears first: the client's own, or
	// where none comes in one with the addresses of its connection. 0 is none.
	Out byte
}

// Set reads "in", "out" (version 2), "out-v1" and "in,out", as a flag.
func (p *ProxyProtocol) Set(text string) error {
	*p = ProxyProtocol{}
	for word := range strings.SplitSeq(text, ",") {
		switch {
		case word == "in":
			p.In = true
		case word == "out" && p.Out == 0, word == "out-v2" && p.Out == 0:
			p.Out = 2
		case word == "out-v1" && p.Out == 0:
			p.Out = 1
		default:
			return fmt.Errorf("%q is none of in, out and out-v1, with a comma between two", word)
		}
	}
	return nil
}

func (p *ProxyProtocol) String() string {
	var words []string
	if p.In {
		words = append(words, "in")
	}
	if p.Out > 0 {
		words = append(words, fmt.Sprintf("out-v%d", p.Out))
	}
	return strings.Join(words, ",")
}

// errNoHeader is for the log; a client without a header may be no HTTP client.
var errNoHeader = errors.New("no PROXY header came, so the connection was closed; connect through the proxy that sends one, or leave out --proxy-protocol in")

// greeting reads the client's header, if one is to come, and returns what of the client
// has come behind it, and what the server is to hear first.
func (p ProxyProtocol) greeting(c net.Conn) (early, first []byte, err error) {
	var header *proxyproto.Header
	if p.In {
		_ = c.SetReadDeadline(time.Now().Add(headWait))
		r := bufio.NewReader(c)
		if header, err = proxyproto.Read(r); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errNoHeader, err)
		}
		early, _ = r.Peek(r.Buffered())
		early = slices.Clone(early)
		_ = c.SetReadDeadline(time.Time{})
	}
	if p.Out == 0 {
		return early, nil, nil
	}
	if header == nil {
		header = proxyproto.HeaderProxyFromAddrs(p.Out, c.RemoteAddr(), c.LocalAddr())
	}
	header.Version = p.Out
	first, err = header.Format()
	return early, first, err
}
