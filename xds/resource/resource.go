// Package resource holds the words for what proxies are told: a resource and its
// name. Who builds resources and who streams them both import it, and neither the
// other; it brings protobuf and nothing of Envoy's or gRPC.
package resource

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
)

// typePrefix begins every type URL.
const typePrefix = "type.googleapis.com/"

// Ref names a resource.
type Ref struct {
	Type string // the full type URL
	Name string
}

// String is the last word of the type and the name, such as "Listener web".
func (r Ref) String() string { return Kind(r.Type) + " " + r.Name }

// Kind is the last word of a type URL.
func Kind(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

// TypeOf is the type URL of a message.
func TypeOf(m proto.Message) string {
	return typePrefix + string(m.ProtoReflect().Descriptor().FullName())
}

// Resource is one thing that proxies are told. It and its message are never changed
// once built.
type Resource struct {
	Ref
	Message proto.Message
	// After lists what the message needs: a proxy hears of it only once the proxy has
	// acknowledged some version of each, and none of them is removed from a proxy
	// that holds this resource.
	After []Ref
	// Behind lists what a proxy that holds another version of this resource hears first: this
	// one follows once the proxy has answered the newest version of each. What cannot be sent
	// is not waited for.
	Behind []Ref
	// Keep says why a proxy that holds a version which this process has not published
	// goes on with it; empty: it is sent this one.
	Keep string
	// Extension is the type URL of an extension that a proxy has to have for the message; one
	// that does not say that it has it is told Instead. Both zero: all are told the message.
	Extension string
	Instead   proto.Message
	// Earlier are versions that a proxy may hold of a resource which is written once, each
	// with what the proxy lacks by it, such as "HTTP/1.0".
	Earlier map[string]string
	// Owner is whose resource it is, in the words of who builds it; empty for what
	// several share.
	Owner string
}

// New returns the resource that a message is, under a name.
func New(name string, m proto.Message, after ...Ref) Resource {
	return Resource{Ref: Ref{Type: TypeOf(m), Name: name}, Message: m, After: after}
}

// Encode returns the deterministic encoding of the message and its version.
func (r Resource) Encode() (body []byte, version string, err error) {
	body, err = proto.MarshalOptions{Deterministic: true}.Marshal(r.Message)
	if err != nil {
		return nil, "", fmt.Errorf("encode %s: %w", r.Ref, err)
	}
	return body, Version(body), nil
}

// Version is the first 16 hexadecimal digits of the SHA-256 of an encoding: equal
// bytes, equal version.
func Version(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}
