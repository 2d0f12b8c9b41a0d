package xds

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// load is an endpoint set whose content says n.
func load(name string, n uint32) resource.Resource {
	return resource.New(name, &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{Priority: n}}})
}

// What is published one change after the other is what is published at once, however the set is ordered.
func TestPublishedBySmallChangesIsTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	var set []resource.Resource
	for i := range 20 {
		set = append(set, load(fmt.Sprint(i), 0))
	}
	var snap *snapshot
	publish := func() {
		next, err := snap.next(set)
		if err != nil {
			t.Fatal(err)
		}
		if snap != nil && next != snap && next.seq != snap.seq+1 {
			t.Errorf("publish %d follows %d", next.seq, snap.seq)
		}
		snap = next
	}
	publish()
	for range 500 {
		set = slices.Clone(set)
		i := r.IntN(len(set))
		switch r.IntN(8) {
		case 0:
			set = slices.Delete(set, i, i+1)
		case 1:
			set = append(set, load(fmt.Sprint(20+r.IntN(5)), r.Uint32N(3))) // at times there already
		case 2:
			j := r.IntN(len(set))
			set[i], set[j] = set[j], set[i]
		case 3:
			set[i].Keep = fmt.Sprint(r.IntN(2))
		default:
			set[i] = load(set[i].Name, r.Uint32N(3))
		}
		before := snap
		publish()
		afresh, err := (*snapshot)(nil).next(set)
		if err != nil {
			t.Fatal(err)
		}
		got, want := versions(snap), versions(afresh)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("published is %v, want %v", got, want)
		}
		var changed []string
		for _, c := range logged(snap, before.seq) {
			changed = append(changed, c.name)
		}
		if differing := differing(versions(before), got); !slices.Equal(changed, differing) {
			t.Fatalf("the log has %v, changed is %v", changed, differing)
		}
	}
}

func logged(s *snapshot, since uint64) []change {
	all, _ := s.of(resource.TypeOf(&endpoint.ClusterLoadAssignment{})).since(since)
	return all
}

func versions(s *snapshot) map[string]string {
	all := map[string]string{}
	for _, set := range s.types {
		for name, r := range set.byName {
			all[name] = r.version + " " + r.keep
		}
	}
	return all
}

// differing lists the names whose version is another, sorted.
func differing(a, b map[string]string) (names []string) {
	version := func(of string) string { return of[:min(16, len(of))] }
	for name, v := range a {
		if version(v) != version(b[name]) {
			names = append(names, name)
		}
	}
	for name := range b {
		if a[name] == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// BenchmarkPublishCall publishes one change of 1,000 resources, and nobody listens.
func BenchmarkPublishCall(b *testing.B) {
	s := New(Options{Logger: slog.New(slog.DiscardHandler)})
	var set []resource.Resource
	for i := range 1000 {
		set = append(set, load(fmt.Sprintf("svc-%04d", i), 0))
	}
	n := uint32(0)
	for b.Loop() {
		n++
		set[0] = load(set[0].Name, n)
		if err := s.Publish(set); err != nil {
			b.Fatal(err)
		}
	}
}
