package sluice_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sluice-proxy/sluice/"

// room is a package's place in the house. The first one that matches a folder
// counts; a folder that none matches has no place yet.
type room struct {
	dir     string   // a folder, or a pattern for path.Match
	ours    []string // patterns of our packages that it may import
	foreign []string // prefixes of other modules that it may import, beside the standard library
	// Tests may import what the code may, their own package, test/fleet,
	// these of ours and, unless the room is bare, any other module.
	tests []string
	bare  bool
	why   string
}

var anything = []string{""}

var house = []room{
	{dir: "discovery",
		why: "discovery says which instances there are, so everything else can build on it and it builds on nothing"},
	{dir: "discovery/consul/rules",
		why: "rolloutctl checks by it what the adapter asks, and must start without Consul's client"},
	{dir: "discovery/consul", ours: []string{"discovery", "discovery/consul/rules"}, foreign: []string{"github.com/hashicorp/consul/api"},
		why: "an adapter translates into its parent's words and knows nothing else of the house"},
	{dir: "discovery/file", ours: []string{"discovery"}, foreign: []string{"go.yaml.in/yaml/v3"},
		why: "an adapter translates into its parent's words and knows nothing else of the house"},
	{dir: "internal/*",
		why: "a leaf that rooms share is one idea of the standard library's"},
	{dir: "rollout", ours: []string{"discovery", "rollout/drain/contract", "rollout/units", "rollout/policy", "rollout/observed", "rollout/state", "rollout/desired", "rollout/evidence", "rollout/spread", "rollout/returns"}, tests: []string{"rollout/drain", "rollout/sim"},
		why: "rollout decides and must not know who stores, serves or publishes; it is linked into rolloutctl, too. Its tests look on from outside, in the one simulated world"},
	{dir: "rollout/units",
		why: "units is the vocabulary that policies, plans and estimates share, so it builds on nothing"},
	{dir: "rollout/policy", ours: []string{"rollout/drain/contract", "rollout/units"},
		why: "a policy is words, their defaults and their rules: what configures, shows and checks it needs no decision"},
	{dir: "rollout/observed", ours: []string{"discovery", "rollout/drain/contract"},
		why: "what is observed owes nothing to what is remembered, wished or decided; it is judged by what was observed before"},
	{dir: "rollout/state", ours: []string{"discovery", "rollout/drain/contract", "rollout/drain/strictjson", "rollout/units", "rollout/policy", "rollout/observed", "rollout/returns"},
		why: "what is remembered is one value with its invariants: what stores, shows and plays it needs no decision, and a decision cannot put its own words into it"},
	{dir: "rollout/desired", ours: []string{"discovery", "rollout/drain/contract", "rollout/units", "rollout/policy", "rollout/observed", "rollout/state"},
		why: "what should be is words for those that carry it out: what publishes, tells and calls hooks needs no decision"},
	{dir: "rollout/evidence", ours: []string{"discovery", "rollout/drain/contract", "rollout/observed"},
		why: "evidence judges by what is observed alone: where it is needed, nothing is remembered"},
	{dir: "rollout/spread", ours: []string{"rollout/units"},
		why: "spread is the arithmetic of one step and knows neither services nor rollouts"},
	{dir: "rollout/returns", ours: []string{"rollout/units"},
		why: "returns infers from two totals alone how many clients are on their way, so that it can be held against any crowd of clients"},
	{dir: "rollout/control", ours: []string{"rollout", "rollout/policy", "rollout/observed", "rollout/state", "rollout/desired", "discovery", "internal/level", "rollout/drain/contract"}, tests: []string{"rollout/drain", "rollout/units"},
		why: "control is the one loop with effects: it looks, has rollout decide, stores, and lets it show"},
	{dir: "rollout/drain/contract", tests: []string{"rollout/drain/internal/*"}, bare: true,
		why: "both sides speak these words: the control plane needs nothing of an instance's library, and an instance nothing of a control plane"},
	{dir: "rollout/drain/ticket", bare: true,
		why: "who gives tickets, who counts them and who checks an instance go by one rule, with no gate in between"},
	{dir: "rollout/drain/bearer", bare: true,
		why: "the contract and the operator's API demand a token by one rule"},
	{dir: "rollout/drain", ours: []string{"rollout/drain/contract", "rollout/drain/internal/*", "rollout/drain/bearer", "rollout/drain/strictjson", "rollout/drain/ticket", "rollout/drain/wsframe"}, bare: true,
		why: "authors link rollout/drain into their own servers, so it brings the standard library only"},
	{dir: "rollout/drain/wsframe", bare: true,
		why: "one place knows RFC 6455, for the library, the sidecar and the conformity check, and it does no I/O of its own"},
	{dir: "rollout/drain/strictjson", bare: true,
		why: "one place says what strict is, for the contract, the API and the stored state"},
	{dir: "rollout/drain/internal/*", bare: true,
		why: "what the library's modules share is the standard library's, or an importer of the library would get more"},
	{dir: "sidecar/http1",
		why: "where HTTP/1 begins and ends is followed in whatever pieces it comes, without I/O, and knows nothing of drains"},
	{dir: "sidecar", ours: []string{"rollout/drain", "rollout/drain/contract", "rollout/drain/wsframe", "sidecar/http1"}, foreign: []string{"github.com/pires/go-proxyproto"},
		why: "a sidecar is one more instance that speaks the drain contract, small enough to stand beside any server"},
	{dir: "rollout/drain/conform", ours: []string{"rollout/drain/contract", "rollout/drain/ticket", "rollout/drain/wsframe"}, tests: []string{"rollout/drain"}, bare: true,
		why: "conform knows the contract's words and looks from outside; rolloutctl links it"},
	{dir: "rollout/drain/grpcdrain", ours: []string{"rollout/drain", "rollout/drain/contract", "rollout/drain/ticket"}, foreign: []string{"google.golang.org"}, tests: []string{"rollout/drain/internal/*"},
		why: "an adapter of the library for grpc-go; the library itself brings the standard library only"},
	{dir: "rollout/api", ours: []string{"rollout", "rollout/policy", "rollout/observed", "rollout/state", "rollout/desired", "discovery", "rollout/drain/contract", "rollout/drain/bearer", "rollout/drain/strictjson", "rollout/units", "xds/reports/exchange"}, tests: []string{"rollout/returns"},
		why: "the operator's words are rollout's, the replicas' are the exchange's; what speaks HTTP needs no store and no Envoy"},
	{dir: "rollout/sim", ours: []string{"rollout", "rollout/policy", "rollout/observed", "rollout/state", "rollout/desired", "discovery", "rollout/drain/contract", "rollout/units"},
		why: "the simulation holds the real decisions against a world without I/O"},
	{dir: "rollout/store/*", ours: []string{"rollout/state", "discovery"}, foreign: []string{"github.com/hashicorp/consul/api", "golang.org/x/sys/unix"},
		why: "a store keeps bytes by compare-and-swap and knows nothing of drains or proxies"},
	{dir: "rollout/outside", ours: []string{"rollout/desired", "rollout/policy", "rollout/observed", "discovery", "internal/level", "rollout/units"}, foreign: []string{"github.com/prometheus/client_golang/api", "github.com/prometheus/common/model"},
		why: "what asks gates and calls hooks gives answers and decides nothing"},
	{dir: "envoy", ours: []string{"discovery", "rollout/desired", "rollout/units", "envoy/edge", "xds/resource"}, foreign: []string{"github.com/envoyproxy/go-control-plane/envoy", "google.golang.org/protobuf"},
		tests: []string{"envoy/edge/edgetest"},
		why:   "envoy is a pure translation from wishes to resources; how they are told is xds's business"},
	{dir: "envoy/bootstrap",
		why: "rolloutctl prints a bootstrap and must start in under 50 ms, without Envoy's protos"},
	{dir: "envoy/edge", ours: []string{"discovery", "rollout/units"}, tests: []string{"envoy/edge/edgetest"},
		why: "the rules for listeners and services are one book for rolloutctl, rolloutd and the builder, so it brings neither YAML nor Envoy's protos"},
	{dir: "envoy/edge/edgetest", ours: []string{"discovery", "rollout", "rollout/units", "envoy/edge"},
		why: "it makes up configurations near the border of the rules, for every test that holds two rooms against each other"},
	{dir: "xds", ours: []string{"internal/level", "xds/process", "xds/resource"}, foreign: []string{"github.com/envoyproxy/go-control-plane", "google.golang.org"}, tests: []string{"xds/process/processtest"},
		why: "xds tells resources and knows nothing of services or rollouts"},
	{dir: "xds/resource", foreign: []string{"google.golang.org/protobuf"},
		why: "envoy builds resources and xds streams them: both know the word, and neither brings the other"},
	{dir: "xds/process",
		why: "which process speaks is known from connections alone, and for every kind of stream at once"},
	{dir: "xds/process/processtest",
		why: "a listener for the tests of xds and xds/reports"},
	{dir: "xds/reports", ours: []string{"internal/level", "xds/process", "xds/reports/exchange"}, foreign: []string{"github.com/envoyproxy/go-control-plane", "google.golang.org"}, tests: []string{"xds/process/processtest"},
		why: "reports come on streams of their own and say nothing of resources, so what hears them needs nothing of what tells"},
	{dir: "xds/reports/exchange",
		why: "what replicas exchange is JSON that rollout/api and so rolloutctl know, without Envoy's protos"},
	{dir: "cmd/internal/*", ours: []string{"cmd/internal/*", "discovery", "discovery/consul/rules", "rollout/policy", "rollout/units", "envoy/edge", "internal/secret"}, foreign: anything,
		why: "what the commands share is words; the wiring is the commands' own"},
	{dir: "cmd/rolloutctl", ours: []string{"cmd/internal/*", "internal/secret", "discovery", "discovery/file", "rollout", "rollout/*", "rollout/drain/conform", "rollout/drain/contract", "envoy/bootstrap"}, foreign: anything,
		why: "rolloutctl must start in under 50 ms, without Envoy's protos, gRPC and the adapters"},
	{dir: "cmd/drain-sidecar", ours: []string{"cmd/internal/launch", "internal/secret", "rollout/drain", "rollout/drain/contract", "sidecar"}, foreign: []string{"golang.org/x/sys"},
		why: "the sidecar runs beside each server and brings neither Envoy's protos nor the control plane"},
	{dir: "cmd/*", ours: []string{"cmd/internal/*", "discovery", "discovery/*", "rollout", "rollout/*", "rollout/store/*", "rollout/drain/contract", "envoy", "envoy/*", "xds", "xds/*", "xds/reports/exchange"}, foreign: anything, tests: []string{"envoy/edge/edgetest"},
		why: "everything meets in cmd, but the product does not need its examples"},
	{dir: "examples/*", ours: []string{"discovery", "discovery/*", "rollout", "rollout/*", "rollout/drain/contract", "envoy/*", "examples/*", "examples/*/*", "test/fleet"}, foreign: anything,
		why: "an example uses what anybody could use, and runs the programs as processes"},
	{dir: "examples/*/*", ours: []string{"rollout/drain", "examples/*", "examples/*/*"}, foreign: anything,
		why: "an example uses what anybody could use, and runs the programs as processes"},
	{dir: "test/fleet", ours: []string{"discovery", "envoy/bootstrap", "rollout/api", "rollout/drain/wsframe"}, foreign: anything,
		why: "a harness starts the programs as processes and asks them as anybody could"},
	{dir: "test/thirdparty/xds", tests: []string{"xds", "xds/resource"},
		why: "it compares the xDS server with those of others, from outside"},
	{dir: "test/thirdparty/*", tests: []string{"discovery", "envoy", "rollout", "rollout/*", "rollout/drain/conform", "rollout/drain/contract", "rollout/drain/ticket", "rollout/drain/grpcdrain", "sidecar", "examples/*/*"},
		why: "only tests are there, of the programs and libraries against servers and clients that others wrote"},
	{dir: ".", why: "the root holds no code, only this test"},
}

// TestImportDirection reads the files: a test that ran `go list` would be cached
// and go blind.
func TestImportDirection(t *testing.T) {
	for _, f := range sources(t) {
		at := slices.IndexFunc(house, func(r room) bool { return matches(r.dir, f.dir()) })
		if at < 0 {
			t.Errorf("%s has no place in the house: give its folder a line here, with what it may import and why", f.path)
			continue
		}
		for _, spec := range f.ast.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !house[at].allows(f, name) {
				t.Errorf("%s imports %s, but %s", f.path, name, house[at].why)
			}
		}
	}
}

func (r room) allows(f source, name string) bool {
	under := func(prefix string) bool {
		return prefix == "" || name == prefix || strings.HasPrefix(name, prefix+"/")
	}
	if own, ours := strings.CutPrefix(name+"/", module); ours {
		own = strings.TrimSuffix(own, "/")
		allowed := r.ours
		if f.isTest() {
			allowed = slices.Concat(r.ours, r.tests, []string{f.dir(), "test/fleet"})
		}
		return slices.ContainsFunc(allowed, func(pattern string) bool { return matches(pattern, own) })
	}
	first, _, _ := strings.Cut(name, "/")
	switch {
	case !strings.Contains(first, "."): // the standard library
		return true
	case !f.isTest():
		return slices.ContainsFunc(r.foreign, under)
	}
	return !r.bare
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range sources(t) {
		if !f.isTest() {
			documented[f.dir()] = documented[f.dir()] || f.ast.Doc != nil
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment: say in one sentence what it is for", dir)
		}
	}
}

func TestPackagesAreNamedForWhatTheyHold(t *testing.T) {
	empty := []string{"util", "utils", "common", "helper", "helpers", "type", "types", "manager", "misc"}
	for _, f := range sources(t) {
		for _, name := range []string{path.Base(f.dir()), f.ast.Name.Name} {
			if slices.Contains(empty, name) {
				t.Errorf("%s: %q says nothing; a function without a home is a missing noun", f.path, name)
			}
		}
	}
}

// longFiles may have more than 400 lines, each for a reason.
var longFiles = map[string]string{}

func TestFilesAreOneIdea(t *testing.T) {
	long := map[string]bool{}
	for _, f := range sources(t) {
		if f.lines <= 400 {
			continue
		}
		long[f.path] = true
		if longFiles[f.path] == "" {
			t.Errorf("%s has %d lines; a file is one idea in at most 400", f.path, f.lines)
		}
	}
	for name := range longFiles {
		if !long[name] {
			t.Errorf("%s needs no exception any more", name)
		}
	}
}

// pureRooms decide: what they say is a function of what they are given, now among
// it. Otherwise neither a restart nor a simulation would decide the same.
var pureRooms = []string{"rollout", "rollout/units", "rollout/policy", "rollout/observed", "rollout/state", "rollout/desired", "rollout/evidence", "rollout/spread", "rollout/returns", "envoy", "envoy/edge"}

func TestDecisionsArePure(t *testing.T) {
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}
	effects := []string{"os", "net/http", "sync", "log/slog", "math/rand", "math/rand/v2"}
	for _, f := range sources(t) {
		if f.isTest() || !slices.Contains(pureRooms, f.dir()) {
			continue
		}
		for _, spec := range f.ast.Imports {
			if name, _ := strconv.Unquote(spec.Path.Value); slices.Contains(effects, name) {
				t.Errorf("%s imports %s; a decision has no effects, the loop in rollout/control has them", f.path, name)
			}
		}
		for on, name := range f.selectors() {
			if on == "time" && slices.Contains(clock, name) {
				t.Errorf("%s uses time.%s; a decision reads no clock, it is given now", f.path, name)
			}
		}
	}
}

// TestNamesMeanOneThing: in one package no type has the name of a method. A reader who
// meets the word twice in a line should not have to ask which it is.
func TestNamesMeanOneThing(t *testing.T) {
	types, methods := map[string]bool{}, map[string]string{}
	for _, f := range sources(t) {
		if f.isTest() {
			continue
		}
		for n := range ast.Preorder(f.ast) {
			switch n := n.(type) {
			case *ast.TypeSpec:
				types[f.dir()+"."+n.Name.Name] = true
			case *ast.FuncDecl:
				if n.Recv != nil && !n.Name.IsExported() {
					methods[f.dir()+"."+n.Name.Name] = f.path
				}
			}
		}
	}
	for name, where := range methods {
		if types[name] {
			t.Errorf("%s: %s is a type and a method; name one of them otherwise", where, name)
		}
	}
}

// TestNothingIsSkipped: a skipped test is a promise that nobody checks.
func TestNothingIsSkipped(t *testing.T) {
	for _, f := range sources(t) {
		for _, name := range f.selectors() {
			if f.isTest() && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, name) {
				t.Errorf("%s skips a test; fail with a sentence that says what is missing", f.path)
			}
		}
	}
}

// source is one Go file of the tree.
type source struct {
	path  string
	lines int
	ast   *ast.File
}

func (s source) dir() string  { return path.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// selectors yields x, y for every x.y in the file.
func (s source) selectors() iter.Seq2[string, string] {
	return func(yield func(on, name string) bool) {
		for n := range ast.Preorder(s.ast) {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				continue
			}
			if on, ok := sel.X.(*ast.Ident); ok && !yield(on.Name, sel.Sel.Name) {
				return
			}
		}
	}
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	tree := os.DirFS(".")
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{path: name, lines: bytes.Count(text, []byte("\n")), ast: parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d Go files; this test must run in the root of the tree", len(all))
	}
	return all
}

func matches(pattern, dir string) bool {
	ok, err := path.Match(pattern, dir)
	return ok && err == nil
}
