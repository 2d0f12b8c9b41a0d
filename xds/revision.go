package xds

import (
	"slices"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// revision is one version of a resource. It is never changed once published, but for
// message.
type revision struct {
	resource.Ref
	version string
	after   []resource.Ref
	keep    string
	earlier map[string]string
	message proto.Message // the newest that is encoded so; Server.publish guards it
	// envelope is the delta protocol's wrapping of the encoded message, shared by all
	// streams; nil when only the version is known here.
	envelope *discovery.Resource
}

// revise returns the revision that r is, where old is the one that is published, or
// nil: old itself when nothing of it changes. A message is encoded once, however often
// it is published.
func revise(old *revision, r resource.Resource) (*revision, error) {
	if old != nil && old.message == r.Message && slices.Equal(old.after, r.After) && old.keep == r.Keep {
		return old, nil
	}
	body, version, err := r.Encode()
	if err != nil {
		return nil, err
	}
	next := &revision{Ref: r.Ref, version: version, after: slices.Clone(r.After), keep: r.Keep, earlier: r.Earlier, message: r.Message}
	switch {
	case old == nil || old.version != version:
		next.envelope = &discovery.Resource{Name: r.Name, Version: version, Resource: &anypb.Any{TypeUrl: r.Type, Value: body}}
	case slices.Equal(old.after, r.After) && old.keep == r.Keep:
		old.message = r.Message // the older one is not kept
		return old, nil
	default:
		next.envelope = old.envelope
	}
	return next, nil
}

// kept says what a proxy lacks that keeps another version of a resource which is written once.
func (r *revision) kept(version string) string {
	if lacks := r.earlier[version]; lacks != "" {
		return "which lacks " + lacks
	}
	return "which has other options or is of another release"
}

func (r *revision) needs(ref resource.Ref) bool { return slices.Contains(r.after, ref) }
