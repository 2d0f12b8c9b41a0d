package drain

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/sluice-proxy/sluice/rollout/drain/ticket"
)

// call is a request of gRPC, gRPC-Web or Connect, as far as its end goes. One that was
// told to go ends with the code unavailable, which clients try again; by its context
// alone it would be canceled, which they do not. The zero value is another request.
type call struct {
	protocol protocol
	ticket   func() string // a new one; empty where there are none

	// What was written is a sequence of envelopes: a byte of flags, four of length, and
	// the payload.
	messages int
	prefix   [5]byte
	have     int    // bytes of prefix seen
	left     uint32 // bytes of payload still to come
	end      []byte // of a stream that was told to go: its last envelope, so far
}

type protocol uint8

const (
	notRPC      protocol = iota
	grpcCall             // ends with trailers
	grpcWebCall          // … in an envelope
	connectCall          // a stream: ends with an envelope of JSON
)

// callOf goes by the request's content type.
func callOf(r *http.Request, ticket func() string) call {
	return call{protocol: protocolOf(r), ticket: ticket}
}

func protocolOf(r *http.Request) protocol {
	switch kind := r.Header.Get("Content-Type"); {
	case strings.HasPrefix(kind, "application/connect+"):
		return connectCall
	case strings.HasPrefix(kind, "application/grpc-web-text"): // base64, which is not followed
	case strings.HasPrefix(kind, "application/grpc-web"):
		return grpcWebCall
	case strings.HasPrefix(kind, "application/grpc"):
		return grpcCall
	}
	return notRPC
}

const grpcStatus = "Grpc-Status"

// last reports whether these flags begin the envelope that ends the response.
func (c *call) last(flags byte) bool {
	return c.protocol == connectCall && flags&0x02 != 0 || c.protocol == grpcWebCall && flags&0x80 != 0
}

// write writes p, and in place of the response's end another one if it was told to go.
func (c *call) write(w http.ResponseWriter, p []byte, told bool) (int, error) {
	if c.protocol == notRPC {
		return w.Write(p)
	}
	for i := 0; i < len(p); {
		if c.end != nil || told && c.have == 0 && c.left == 0 && c.last(p[i]) {
			if n, err := w.Write(p[:i]); err != nil {
				return n, err
			}
			c.end = append(c.end, p[i:]...)
			return len(p), c.endStream(w)
		}
		i += c.take(p[i:])
	}
	return w.Write(p)
}

// take follows p to the end of what is under way, and says how much that is.
func (c *call) take(p []byte) int {
	if c.left > 0 {
		n := min(uint32(min(len(p), 1<<30)), c.left)
		c.left -= n
		return int(n)
	}
	n := copy(c.prefix[c.have:], p)
	if c.have += n; c.have == len(c.prefix) {
		c.left, c.have = binary.BigEndian.Uint32(c.prefix[1:]), 0
		c.messages++
	}
	return n
}

// endStream writes the end once it is there as a whole.
func (c *call) endStream(w http.ResponseWriter) error {
	size := len(c.prefix)
	if len(c.end) < size || uint64(len(c.end)-size) < uint64(binary.BigEndian.Uint32(c.end[1:])) {
		return nil
	}
	if c.protocol == connectCall {
		end := map[string]any{"error": map[string]string{"code": "unavailable", "message": ErrEvicted.Error()}}
		if given := c.ticket(); given != "" {
			end["metadata"] = map[string][]string{ticket.Word: {given}}
		}
		text, _ := json.Marshal(end)
		c.end = envelope(0x02, text)
	} else if _, status, said := bytes.Cut(c.trailers(), []byte("grpc-status: ")); said && c.wrong(firstLine(status)) {
		text := "grpc-status: 14\r\ngrpc-message: " + ErrEvicted.Error() + "\r\n"
		if given := c.ticket(); given != "" {
			text += ticket.Word + ": " + given + "\r\n"
		}
		c.end = envelope(0x80, []byte(text))
	}
	_, err := w.Write(c.end)
	c.end = c.end[:0] // nothing follows
	return err
}

// trailers are those in the end of gRPC-Web; nil where they cannot be read.
func (c *call) trailers() []byte {
	payload := c.end[len(c.prefix):]
	if c.end[0]&0x01 == 0 {
		return payload
	}
	unzip, err := gzip.NewReader(bytes.NewReader(payload))
	if err != nil {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(unzip, 64<<10))
	return text
}

func envelope(flags byte, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(payload))), payload...)
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	return string(line)
}

// wrong reports whether a gRPC status says that the call was canceled or why it is not
// known, or that a stream is complete. A single answer may be that of a call that was.
func (c *call) wrong(status string) bool {
	return status == "1" || status == "2" || status == "0" && c.messages != 1
}

// endTrailers has the trailers of a call that was told to go say so.
func (c *call) endTrailers(h http.Header) {
	if c.protocol != grpcCall {
		return
	}
	for _, prefix := range []string{"", http.TrailerPrefix} {
		if c.wrong(h.Get(prefix + grpcStatus)) {
			h.Set(prefix+grpcStatus, "14")
			h.Set(prefix+"Grpc-Message", ErrEvicted.Error())
			h.Del(prefix + "Grpc-Status-Details-Bin")
		}
	}
	if given := c.ticket(); given != "" {
		h.Set(http.TrailerPrefix+ticket.Word, given)
	}
}
