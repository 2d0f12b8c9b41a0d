package xds

import (
	"slices"
	"sync/atomic"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// revision is one version of a resource. It is never changed once published, but for
// message, proven and trying.
type revision struct {
	resource.Ref
	version string
	after   []resource.Ref
	behind  []resource.Ref
	keep    string
	earlier map[string]string
	// extension is what a proxy has to have to be told it; the others are told instead.
	extension string
	instead   *revision
	message   proto.Message // the newest that is encoded so; Server.publish guards it
	// envelope is the delta protocol's wrapping of the encoded message, shared by all
	// streams; nil when only the version is known here.
	envelope *discovery.Resource
	// proven: some proxy has acknowledged these bytes, or said that it holds them.
	proven atomic.Bool
	// trying is how many proxies they are on their way to, alone, while nobody has them.
	trying atomic.Int32
	// settled are the entries of proxies that hold it and have nothing else to say: that do not
	// ask for it by name, and that do. They are shared, and never changed.
	settled [2]entry
}

// prove records that some proxy has these bytes.
func (r *revision) prove() {
	if !r.proven.Load() { // one write for all proxies
		r.proven.Store(true)
	}
}

// revise returns the revision that r is, where old is the one that is published, or
// nil: old itself when nothing of it changes. A message is encoded once, however often
// it is published.
func revise(old *revision, r resource.Resource) (*revision, error) {
	if old != nil && old.is(&r) {
		return old, nil
	}
	body, version, err := r.Encode()
	if err != nil {
		return nil, err
	}
	next := &revision{Ref: r.Ref, version: version, after: slices.Clone(r.After), behind: slices.Clone(r.Behind), keep: r.Keep, earlier: r.Earlier, message: r.Message}
	if r.Extension != "" {
		next.extension = r.Extension
		var other *revision
		if old != nil {
			other = old.instead
		}
		lesser := r
		lesser.Message, lesser.Extension, lesser.Instead = r.Instead, "", nil
		if next.instead, err = revise(other, lesser); err != nil {
			return nil, err
		}
	}
	switch {
	case old == nil || old.version != version:
		next.envelope = &discovery.Resource{Name: r.Name, Version: version, Resource: &anypb.Any{TypeUrl: r.Type, Value: body}}
	case slices.Equal(old.after, r.After) && slices.Equal(old.behind, r.Behind) && old.keep == r.Keep && old.extension == next.extension && old.instead == next.instead:
		old.message = r.Message // the older one is not kept
		return old, nil
	default:
		next.envelope = old.envelope
		next.proven.Store(old.proven.Load())
	}
	next.settled = [2]entry{{held: next}, {held: next, named: true}}
	return next, nil
}

// is reports whether the revision is of this very message and of what else counts.
func (r *revision) is(of *resource.Resource) bool {
	return r.message == of.Message && r.extension == of.Extension && r.lesser() == of.Instead && slices.Equal(r.after, of.After) && slices.Equal(r.behind, of.Behind) && r.keep == of.Keep
}

// lesser is the message that proxies without the extension are told; nil: there is none.
func (r *revision) lesser() proto.Message {
	if r.instead == nil {
		return nil
	}
	return r.instead.message
}

// differs reports whether some proxy is told other bytes than by old, which may be nil.
func (r *revision) differs(old *revision) bool {
	return old == nil || old.version != r.version || (old.instead == nil) != (r.instead == nil) || r.instead != nil && r.instead.differs(old.instead)
}

// kept says what a proxy lacks that keeps another version of a resource which is written once.
func (r *revision) kept(version string) string {
	if lacks := r.earlier[version]; lacks != "" {
		return "which lacks " + lacks
	}
	return "which has other options or is of another release"
}

func (r *revision) needs(ref resource.Ref) bool { return slices.Contains(r.after, ref) }
