package envoy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
	"github.com/sluice-proxy/sluice/rollout/units"
	"github.com/sluice-proxy/sluice/xds/resource"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// setting is one configured world.
type setting struct {
	config edge.Config
	wishes desired.Wishes
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func wish(blue, green units.Share, blues, greens []desired.Endpoint) desired.Wish {
	return desired.Wish{
		Weights:   map[discovery.Colour]units.Share{discovery.Blue: blue, discovery.Green: green},
		Endpoints: map[discovery.Colour][]desired.Endpoint{discovery.Blue: blues, discovery.Green: greens},
	}
}

// worlds are the settings whose resources are golden files.
func worlds() map[string]setting {
	at := func(last int, draining bool) desired.Endpoint {
		return desired.Endpoint{ID: discovery.InstanceID(fmt.Sprint(last)), Addr: addr(fmt.Sprintf("10.0.0.%d:9001", last)), Draining: draining}
	}
	retired := wish(0, 0, []desired.Endpoint{at(9, true)}, nil)
	retired.Retired = true
	gone := wish(10_000, 0, nil, nil)
	gone.Gone = true
	limited := func(w desired.Wish, proxies, blue, green int) desired.Wish {
		w.Proxies, w.Limits = proxies, map[discovery.Colour]int{discovery.Blue: blue, discovery.Green: green}
		return w
	}
	return map[string]setting{
		"minimal": {
			edge.Config{Listeners: []edge.Listener{{Name: "web", Address: addr("0.0.0.0:8080")}}, Services: []edge.Service{{Name: "chat", Listener: "web"}}},
			desired.Wishes{"chat": wish(10_000, 0, []desired.Endpoint{at(1, false), at(2, false)}, nil)},
		},
		"rollout": {
			edge.Config{
				Listeners: []edge.Listener{
					{Name: "web", Address: addr("[::]:443"), TLS: &edge.TLS{Certificate: "/etc/tls/tls.crt", Key: "/etc/tls/tls.key"}, AccessLog: edge.AccessLog{File: "/dev/stdout"}},
					{Name: "raw", Address: addr("0.0.0.0:5222"), AccessLog: edge.AccessLog{File: "/dev/stdout"}},
				},
				Services: []edge.Service{
					{Name: "chat", Listener: "web", Domains: []string{"Chat.example.com", "*.chat.example.com"}, Prefix: "/ws", StormGuard: 500},
					{Name: "all-feeds", Listener: "web", Domains: []string{"chat.example.com"}, Prefix: "/ws/feeds/", HTTP2: true},
					{Name: "pages", Listener: "web"},
					{Name: "xmpp", Listener: "raw", Protocol: edge.TCP, StormGuard: 3},
				},
			},
			desired.Wishes{
				"chat": limited(wish(9_500, 500, []desired.Endpoint{at(1, false), at(2, true)}, []desired.Endpoint{at(3, false)}), 3, 10_000, 20_000),
				"all-feeds": wish(0, 10_000, []desired.Endpoint{at(1, true), {ID: "6", Addr: addr("[fd00::1]:80")}},
					[]desired.Endpoint{{ID: "4", Addr: addr("[::ffff:10.0.0.4]:80")}, {ID: "twin", Addr: addr("10.0.0.4:80"), Draining: true}}),
				"pages": wish(10_000, 0, nil, nil),
				"xmpp":  limited(wish(0, 10_000, []desired.Endpoint{at(7, true)}, []desired.Endpoint{at(8, false)}), 2, 0, 1),
			},
		},
		"leaving": {
			edge.Config{
				Listeners: []edge.Listener{{Name: "web", Address: addr("127.0.0.1:80")}, {Name: "raw", Address: addr("127.0.0.1:81"), Protocol: edge.TCP}},
				Services:  []edge.Service{{Name: "retired", Listener: "web"}, {Name: "gone", Listener: "web", Prefix: "/gone"}},
			},
			desired.Wishes{"retired": retired, "gone": gone, "unconfigured": retired},
		},
		"affinity": {
			edge.Config{
				Listeners: []edge.Listener{{Name: "web", Address: addr("0.0.0.0:8080")}},
				Services: []edge.Service{
					{Name: "chat", Listener: "web", Prefix: "/chat", Affinity: &edge.Affinity{Cookie: "aff", Session: edge.Session{Query: "sid"}}},
					{Name: "shop", Listener: "web", Affinity: &edge.Affinity{Cookie: "aff"}},
				},
			},
			desired.Wishes{
				"chat": wish(0, 10_000, []desired.Endpoint{at(1, true), at(2, true)}, []desired.Endpoint{at(3, false)}),
				"shop": wish(10_000, 0, []desired.Endpoint{at(4, false), at(5, true)}, nil),
			},
		},
		"faults": {
			edge.Config{
				Listeners: []edge.Listener{{Name: "web", Address: addr("127.0.0.1:80")}},
				Services: []edge.Service{
					{Name: "right", Listener: "web"}, {Name: "unknown", Listener: "web", Prefix: "/u"},
					{Name: "light", Listener: "web", Prefix: "/l"}, {Name: "portless", Listener: "web", Prefix: "/p"},
					{Name: "one", Listener: "web", Prefix: "/same"}, {Name: "other", Listener: "web", Prefix: "/same/"},
				},
			},
			desired.Wishes{
				"right": wish(10_000, 0, []desired.Endpoint{at(1, false)}, nil), "light": wish(4_000, 4_000, nil, nil),
				"portless": wish(10_000, 0, []desired.Endpoint{{ID: "p1", Addr: addr("10.0.0.1:0")}}, nil),
				"one":      wish(10_000, 0, nil, nil), "other": wish(10_000, 0, nil, nil),
			},
		},
	}
}

// print shows resources and errors as the golden files have them.
func print(t *testing.T, rs []resource.Resource, errs map[discovery.Service]error) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, s := range slices.Sorted(maps.Keys(errs)) {
		fmt.Fprintf(&out, "error: %v\n", errs[s])
	}
	for _, r := range rs {
		fmt.Fprintf(&out, "--- %s, of %q, after %v\n", r.Ref, r.Owner, r.After)
		b, err := protojson.Marshal(r.Message)
		if err != nil {
			t.Fatal(err)
		}
		// protojson puts spaces at random.
		if err := json.Indent(&out, b, "", "  "); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func TestGolden(t *testing.T) {
	for name, w := range worlds() {
		t.Run(name, func(t *testing.T) {
			rs, errs := Build(w.config, w.wishes)
			got := print(t, rs, errs)
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("not as in %s; look at the difference after go test ./envoy -update\n%s", file, got)
			}
			if refusals := Safe(nil, rs, May{}); len(refusals) > 0 {
				t.Errorf("the guard refuses it: %v", refusals)
			}
		})
	}
}

// shuffled is the same world, told in another order.
func shuffled(r *rand.Rand, w setting) setting {
	ls, ss := slices.Clone(w.config.Listeners), slices.Clone(w.config.Services)
	r.Shuffle(len(ls), func(i, j int) { ls[i], ls[j] = ls[j], ls[i] })
	r.Shuffle(len(ss), func(i, j int) { ss[i], ss[j] = ss[j], ss[i] })
	for i, s := range ss {
		ss[i].Domains = slices.Clone(s.Domains)
		r.Shuffle(len(s.Domains), func(a, b int) { ss[i].Domains[a], ss[i].Domains[b] = ss[i].Domains[b], ss[i].Domains[a] })
	}
	wishes := desired.Wishes{}
	for _, name := range slices.Sorted(maps.Keys(w.wishes)) {
		wish := w.wishes[name]
		es := map[discovery.Colour][]desired.Endpoint{}
		for _, c := range discovery.Colours {
			es[c] = slices.Clone(wish.Endpoints[c])
			r.Shuffle(len(es[c]), func(i, j int) { es[c][i], es[c][j] = es[c][j], es[c][i] })
		}
		wish.Endpoints = es
		wishes[name] = wish
	}
	return setting{edge.Config{Listeners: ls, Services: ss}, wishes}
}

func encoded(t *testing.T, rs []resource.Resource) []byte {
	t.Helper()
	var out []byte
	for _, r := range rs {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Message)
		if err != nil {
			t.Fatalf("%s: %v", r.Ref, err)
		}
		out = fmt.Appendf(out, "%s %s %v %d\n%s", r.Ref, r.Owner, r.After, len(b), b)
	}
	return out
}

func TestEqualWorldsGiveEqualBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, w := range worlds() {
		rs, _ := Build(w.config, w.wishes)
		want := encoded(t, rs)
		for range 50 {
			again := shuffled(r, w)
			rs, _ := Build(again.config, again.wishes)
			if !bytes.Equal(encoded(t, rs), want) {
				t.Fatalf("%s: another order gives other bytes", name)
			}
		}
	}
}

// A service with a fault is left out, and the others are as if it were not there.
func TestFaultsStayAlone(t *testing.T) {
	w := worlds()["faults"]
	got, errs := Build(w.config, w.wishes)
	for s, part := range map[discovery.Service]string{
		"unknown": "nothing is known yet", "light": "sum to 80%", "portless": "instance p1", "one": "services[5].domains[0]: */same of listener \"web\" belongs to service one already", "other": "belongs to service one already",
	} {
		if errs[s] == nil || !strings.Contains(errs[s].Error(), part) {
			t.Errorf("error of %s is %v, want %q in it", s, errs[s], part)
		}
	}
	if len(errs) != 5 {
		t.Errorf("errors: %v", errs)
	}
	alone, _ := Build(edge.Config{Listeners: w.config.Listeners, Services: w.config.Services[:1]}, desired.Wishes{"right": w.wishes["right"]})
	if !bytes.Equal(encoded(t, got), encoded(t, alone)) {
		t.Error("a service beside faulty ones is not built as it is alone")
	}
}

func TestNeeds(t *testing.T) {
	w := worlds()["rollout"]
	rs, _ := Build(w.config, w.wishes)
	built := index(rs)
	for _, s := range w.config.Services {
		needs := Needs(s)
		if len(needs) != 3 {
			t.Errorf("%s needs %v", s.Name, needs)
		}
		for _, ref := range needs {
			if built[ref] == nil {
				t.Errorf("%s needs %s, which is not built", s.Name, ref)
			}
		}
	}
}

// Different names give different clusters, in letters that stats can carry.
func FuzzClusterName(f *testing.F) {
	f.Add("a", "a-blue")
	f.Add("a.b", "a_2eb")
	f.Add("a_", "a__")
	f.Add("Ä", "_c3_84")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, c := range discovery.Colours {
			for _, d := range discovery.Colours {
				x, y := ClusterName(discovery.Service(a), c), ClusterName(discovery.Service(b), d)
				if (x == y) != (a == b && c == d) {
					t.Errorf("%q %s is %s, %q %s is %s", a, c, x, b, d, y)
				}
				if i := strings.IndexFunc(x, func(r rune) bool {
					return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789_-", r)
				}); i >= 0 {
					t.Errorf("%q is named %q", a, x)
				}
			}
		}
	})
}
