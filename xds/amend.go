package xds

import (
	"maps"
	"slices"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// amended is next for a set that names what p was made of, in the same order; false when it does
// not. What did not change costs a comparison of pointers.
func (p *snapshot) amended(set []resource.Resource) (_ *snapshot, ok bool, err error) {
	var at []int
	for i := range set {
		switch old := p.order[i]; {
		case old.Ref != set[i].Ref:
			return nil, false, nil
		case !old.is(&set[i]):
			at = append(at, i)
		}
	}
	n := &snapshot{seq: p.seq + 1, types: p.types, users: p.users, order: p.order}
	byType := map[string][]*revision{}
	for _, i := range at {
		rev, err := revise(p.order[i], set[i])
		switch {
		case err != nil:
			return nil, true, err
		case rev == p.order[i]:
			continue
		case len(byType) == 0:
			n.types, n.users, n.order = maps.Clone(p.types), maps.Clone(p.users), slices.Clone(p.order)
		}
		n.order[i] = rev
		n.use(set[i])
		byType[rev.Type] = append(byType[rev.Type], rev)
	}
	if len(byType) == 0 {
		return p, true, nil
	}
	for typeURL, revised := range byType {
		n.types[typeURL] = p.types[typeURL].amended(n.seq, revised)
	}
	return n, true, nil
}

// amended is t with other revisions of some of its names.
func (t *typeSet) amended(seq uint64, revised []*revision) *typeSet {
	n := *t
	n.byName = maps.Clone(t.byName)
	var changed []string
	for _, r := range revised {
		if r.differs(t.byName[r.Name]) {
			changed = append(changed, r.Name)
		}
		n.byName[r.Name] = r
	}
	n.note(seq, changed)
	return &n
}

// use records what the resource needs.
func (n *snapshot) use(r resource.Resource) {
	for _, ref := range r.After {
		if !slices.Contains(n.users[ref.Type], r.Type) {
			n.users[ref.Type] = append(slices.Clip(n.users[ref.Type]), r.Type)
		}
	}
}
