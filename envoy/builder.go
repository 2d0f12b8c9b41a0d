package envoy

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// Builder is Build with a memory. It returns what Build does, and what follows from
// the same configuration and the same wishes as the time before is the same message,
// not an equal one: the cost of a change is that of what changes. The zero value has
// built nothing. Its method must not be called concurrently.
type Builder struct {
	config    edge.Config
	listeners []edge.Listener
	bad       map[string]error
	faulty    map[discovery.Service]error
	of        map[discovery.Service]edge.Service

	names    []discovery.Service // configured or wished, sorted
	services map[discovery.Service]*built
	shared   map[string]served // by listener
	admitted []admitted
	runtime  resource.Resource

	made     []resource.Resource // the memory in which it is collected
	refs     []resource.Ref      // what was made, in the order in which it was
	order    []int               // sorted: indexes of refs
	spelling int                 // of the paths of certificates
}

// Reread makes the next Build spell the paths of certificates in another way, which has every
// Envoy read the files again.
func (b *Builder) Reread() {
	b.spelling = (b.spelling + 1) % spellings
	maps.DeleteFunc(b.shared, func(_ string, of served) bool {
		return slices.ContainsFunc(of.all, func(r resource.Resource) bool { return r.Type == SecretType })
	})
}

// built is what a wish of a service was made into. Never changed once made.
type built struct {
	routed
	known bool
	own   []resource.Resource
	most  []admitted
	err   error
}

// served is what the services on a listener were made into.
type served struct {
	on  []*built
	all []resource.Resource
	// lasting is how many of them, the first ones, no wish can change.
	lasting int
}

// Build is the function Build.
func (b *Builder) Build(c edge.Config, w desired.Wishes) ([]resource.Resource, map[discovery.Service]error) {
	if b.services == nil || !reflect.DeepEqual(b.config, c) {
		b.begin(c)
	}
	b.name(w)
	errs := map[discovery.Service]error{}
	maps.Copy(errs, b.faulty)
	out, admit := b.made[:0], make([]admitted, 0, len(b.admitted))
	at := map[string][]*built{} // by listener
	for _, name := range b.names {
		if b.faulty[name] != nil {
			continue
		}
		wish, ok := w[name]
		if ok && wish.Gone {
			continue
		}
		made := b.service(name, wish, ok)
		if made.err != nil {
			errs[name] = made.err
			continue
		}
		out, admit = append(out, made.own...), append(admit, made.most...)
		if made.Listener != "" && !wish.Retired {
			at[made.Listener] = append(at[made.Listener], made)
		}
	}
	for _, l := range b.listeners {
		if b.bad[l.Name] == nil {
			out = append(out, b.listener(l, at[l.Name])...)
		}
	}
	if b.runtime.Message == nil || !slices.Equal(b.admitted, admit) {
		b.admitted, b.runtime = admit, runtime(admit)
	}
	out = append(out, b.runtime)
	clear(b.made[min(len(out), len(b.made)):])
	b.made = out
	return b.arranged(out), errs
}

// arranged is all, sorted: mostly the same is made as the time before, so that nothing
// has to be compared.
func (b *Builder) arranged(all []resource.Resource) []resource.Resource {
	if !slices.EqualFunc(all, b.refs, func(r resource.Resource, ref resource.Ref) bool { return r.Ref == ref }) {
		b.refs, b.order = make([]resource.Ref, len(all)), make([]int, len(all))
		for i, r := range all {
			b.refs[i], b.order[i] = r.Ref, i
		}
		slices.SortStableFunc(b.order, func(i, j int) int { return compare(all[i], all[j]) })
	}
	sorted := make([]resource.Resource, len(all))
	for i, at := range b.order {
		sorted[i] = all[at]
	}
	return sorted
}

// begin forgets everything: another configuration may change anything.
func (b *Builder) begin(c edge.Config) {
	*b = Builder{
		config: c, listeners: listeners(c), of: map[discovery.Service]edge.Service{},
		services: map[discovery.Service]*built{}, shared: map[string]served{}, spelling: b.spelling,
	}
	b.bad, b.faulty = faults(c)
	for _, s := range c.Services {
		b.of[s.Name] = s
	}
}

// name lists the services that are configured or wished, unless they are those of the
// time before.
func (b *Builder) name(w desired.Wishes) {
	wished, known := 0, true
	for _, name := range b.names {
		if _, ok := w[name]; ok {
			wished++
		} else if _, configured := b.of[name]; !configured {
			known = false
		}
	}
	if known && b.names != nil && wished == len(w) {
		return
	}
	b.names = make([]discovery.Service, 0, len(w)+len(b.of))
	for name := range w {
		b.names = append(b.names, name)
	}
	for name := range b.of {
		if _, wished := w[name]; !wished {
			b.names = append(b.names, name)
		}
	}
	slices.Sort(b.names)
	maps.DeleteFunc(b.services, func(name discovery.Service, _ *built) bool {
		_, found := slices.BinarySearch(b.names, name)
		return !found
	})
}

func (b *Builder) service(name discovery.Service, w desired.Wish, known bool) *built {
	was := b.services[name]
	if was != nil && was.known == known && was.Wish.Equal(w) {
		return was
	}
	s, configured := b.of[name]
	if !configured {
		s = edge.Service{Name: name}
	}
	made := &built{routed: routed{s, w}, known: known}
	if w.Unsettled == "" {
		var unfit error
		made.own, made.err = build(made.routed, known, was)
		made.most, unfit = limits(s, w)
		made.err = cmp.Or(made.err, unfit)
	}
	b.services[name] = made
	return made
}

// listener is what belongs to a listener and the services on it.
func (b *Builder) listener(l edge.Listener, of []*built) []resource.Resource {
	was, ok := b.shared[l.Name]
	next := served{on: of, all: was.all, lasting: was.lasting}
	if !ok {
		next.all = lasting(l, b.spelling)
		next.lasting = len(next.all)
	}
	if !ok || !slices.EqualFunc(was.on, of, func(a, b *built) bool { return a == b || a.same(b.routed) }) {
		on := make([]routed, len(of))
		for i, made := range of {
			on[i] = made.routed
		}
		next.all = append(slices.Clip(next.all[:next.lasting]), storm(l, on))
		switch {
		case l.Protocol != edge.TCP:
			next.all = append(next.all, routes(l, b.config.Leaving, on))
		case len(on) > 0 && on[0].Unsettled == "":
			next.all = append(next.all, tcp(l, on[0]))
		}
	}
	b.shared[l.Name] = next
	return next.all
}

// lasting is what belongs to a listener whatever is wished.
func lasting(l edge.Listener, spelling int) []resource.Resource {
	return slices.Concat([]resource.Resource{listening(l)}, secrets(l, spelling), collectors(l), filtered(l))
}

// same reports whether two services of one configuration are sent new connections in
// the same way.
func (r routed) same(other routed) bool {
	return r.Name == other.Name && r.Proxies == other.Proxies && r.Unsettled == other.Unsettled && maps.Equal(r.Weights, other.Weights) &&
		slices.Equal(r.held(), other.held())
}
