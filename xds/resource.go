// Package xds tells Envoys what to do: it streams one published set of
// resources to every proxy that asks, and knows what each of them has
// acknowledged. It knows nothing of services or rollouts.
//
// Versions are hashes of the content, so that two processes, or one before and
// after a restart, say the same version for the same bytes and a reconnecting
// proxy is sent nothing. A proxy is never told to remove what this process did
// not publish itself, never sent another version of a write-once resource, and
// never told to use a resource before it has acknowledged what that needs.
package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Ref names a resource.
type Ref struct {
	Type string `json:"type"` // the full type URL
	Name string `json:"name"`
}

// String is the last word of the type and the name, such as "Listener web".
func (r Ref) String() string { return kind(r.Type) + " " + r.Name }

// kind is the last word of a type URL.
func kind(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

// Resource is one resource as it is sent. It is never changed once published.
type Resource struct {
	Ref
	// Version is a hash of Body: equal bytes, equal version.
	Version string
	Body    *anypb.Any
	// After lists what this resource needs: it is sent to a proxy only once
	// that proxy has acknowledged some version of each, and none of them is
	// removed from a proxy that holds this resource.
	After []Ref

	wire *discovery.Resource // the delta protocol's envelope, shared by all streams
}

// NewResource marshals m once and computes its version: the first 16
// hexadecimal digits of the SHA-256 of its deterministic encoding.
func NewResource(name string, m proto.Message, after ...Ref) (Resource, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Resource{}, fmt.Errorf("marshal %s %s: %w", m.ProtoReflect().Descriptor().Name(), name, err)
	}
	typeURL := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
	return Resource{
		Ref:     Ref{Type: typeURL, Name: name},
		Version: hash(b),
		Body:    &anypb.Any{TypeUrl: typeURL, Value: b},
		After:   after,
	}, nil
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
