package xds

import (
	"maps"
	"slices"
	"sort"

	"github.com/sluice-proxy/sluice/xds/resource"
)

const (
	// logLength is how many changed names of a type are remembered; a watch
	// that is further behind compares everything.
	logLength = 1024
	// removedLength is how many names that were left out are remembered per type.
	// One that is forgotten is not removed from proxies that come back later.
	removedLength = 4096
)

// snapshot is everything that proxies should hold. It is never changed: a
// publish makes a new one that shares the types without a change.
type snapshot struct {
	seq   uint64 // of the publish, from 1
	types map[string]*typeSet
	// users says which types have had resources After one of a type.
	users map[string][]string
	// order is the set that it was made of, in its order; nil when two have one Ref.
	order []*revision
}

// typeSet is what is published of one type.
type typeSet struct {
	byName map[string]*revision
	names  []string // sorted
	// log lists the changed names, oldest first; it is complete after floor.
	log   []change
	floor uint64
	// removed holds the names that this process published and then left out, with
	// the publish that did: the only ones that a proxy may be told to remove.
	removed map[string]uint64
}

type change struct {
	seq  uint64
	name string
}

// emptySet is what is published of a type that never was.
var emptySet = &typeSet{}

func (p *snapshot) of(typeURL string) *typeSet {
	if t := p.types[typeURL]; t != nil {
		return t
	}
	return emptySet
}

// since lists the names changed after seq; false means that the log does not
// reach back that far.
func (t *typeSet) since(seq uint64) ([]change, bool) {
	if seq < t.floor {
		return nil, false
	}
	at := sort.Search(len(t.log), func(i int) bool { return t.log[i].seq > seq })
	return t.log[at:], true
}

// next is what is published once set is published after p, which may be nil; it is p
// itself when nothing changes. Of two resources with the same Ref the later counts.
func (p *snapshot) next(set []resource.Resource) (*snapshot, error) {
	if p != nil && len(set) == len(p.order) {
		if n, ok, err := p.amended(set); ok {
			return n, err
		}
	}
	first := p == nil
	if first {
		p = &snapshot{}
	}
	byType := map[string]map[string]*revision{}
	for typeURL := range p.types {
		byType[typeURL] = map[string]*revision{} // everything of the type may be left out
	}
	n := &snapshot{seq: p.seq + 1, types: maps.Clone(p.types), users: maps.Clone(p.users)}
	if n.types == nil {
		n.types, n.users = map[string]*typeSet{}, map[string][]string{}
	}
	for _, r := range set {
		rev, err := revise(p.of(r.Type).byName[r.Name], r)
		if err != nil {
			return nil, err
		}
		if byType[r.Type] == nil {
			byType[r.Type] = map[string]*revision{}
		}
		byType[r.Type][r.Name] = rev
		n.order = append(n.order, rev)
		n.use(r)
	}
	names := 0
	for _, byName := range byType {
		names += len(byName)
	}
	if names != len(n.order) {
		n.order = nil
	}
	changed := first
	for typeURL, byName := range byType {
		old := p.of(typeURL)
		if t := old.next(n.seq, byName); t != old {
			n.types[typeURL], changed = t, true
		}
	}
	if !changed {
		return p, nil
	}
	return n, nil
}

// next is t with byName as its content, or t itself when that is equal. It takes
// byName over.
func (t *typeSet) next(seq uint64, byName map[string]*revision) *typeSet {
	var changed, gone []string
	same := true
	for name, r := range byName {
		old := t.byName[name]
		if r.differs(old) {
			changed = append(changed, name)
		}
		same = same && old == r
	}
	for name := range t.byName {
		if byName[name] == nil {
			gone = append(gone, name)
		}
	}
	if same && len(gone) == 0 {
		return t
	}
	n := &typeSet{byName: byName, names: t.names, log: t.log, floor: t.floor, removed: t.removed}
	if len(gone) > 0 || len(byName) != len(t.byName) {
		n.names = slices.Sorted(maps.Keys(byName))
	}
	if len(gone) > 0 || slices.ContainsFunc(changed, func(name string) bool { return t.removed[name] > 0 }) {
		n.removed = withRemoved(t.removed, seq, gone, byName)
	}
	n.note(seq, append(changed, gone...))
	return n
}

// note adds the changed names to the log.
func (t *typeSet) note(seq uint64, changed []string) {
	slices.Sort(changed)
	for _, name := range changed {
		// Older sets share the array; they never look past their own length.
		t.log = append(t.log, change{seq, name})
	}
	if over := len(t.log) - logLength; over > logLength {
		t.floor = t.log[over-1].seq
		t.log = slices.Clone(t.log[over:])
	}
}

// withRemoved is removed with the names that are gone and without those of byName.
func withRemoved(removed map[string]uint64, seq uint64, gone []string, byName map[string]*revision) map[string]uint64 {
	n := maps.Clone(removed)
	if n == nil {
		n = map[string]uint64{}
	}
	for _, name := range gone {
		n[name] = seq
	}
	maps.DeleteFunc(n, func(name string, _ uint64) bool { return byName[name] != nil })
	if over := len(n) - removedLength; over > 0 {
		oldest := slices.SortedFunc(maps.Keys(n), func(a, b string) int { return int(n[a]) - int(n[b]) })
		for _, name := range oldest[:over] {
			delete(n, name)
		}
	}
	return n
}
