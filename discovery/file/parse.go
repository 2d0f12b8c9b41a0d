package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/discovery"
)

// document is the whole file.
type document struct {
	Services map[discovery.Service][]entry `yaml:"services"`
}

// entry is one instance in the file.
type entry struct {
	// ID is unique within the service. Needed.
	ID discovery.InstanceID `yaml:"id"`
	// Colour is blue or green; an instance without is left out.
	Colour discovery.Colour `yaml:"colour"`
	// Address is where it serves, an IP address with a port.
	Address string `yaml:"address"`
	// Drain is its drain endpoint: "10.0.0.5:9002", ":9002" or "9002" (the same
	// host), or an http(s) URL. May be left out.
	Drain string `yaml:"drain"`
	// Capacity is how many connections it has room for. May be left out.
	Capacity *int `yaml:"capacity"`
	// KillAfter is how long after it begins to drain somebody else ends it, such as
	// 90s. May be left out.
	KillAfter string `yaml:"kill_after"`
	// Version is the release it runs, free text.
	Version string `yaml:"version"`
	// Health is passing (the default), warning, critical or maintenance.
	Health discovery.Health `yaml:"health"`
}

// errEmpty: an empty file is one that is being written, not an empty world.
var errEmpty = errors.New("the file is empty; to have no instances write services: {}")

// Parse reads the content of a discovery file, strictly: an unknown key, a key
// given twice, a wrong type, an unknown health, a missing or repeated id and an
// empty file are errors, all of them named at once with path and line. An
// instance without a colour or a usable address is no error but left out, and
// named in its Fleet.
func Parse(path string, data []byte) (map[discovery.Service]discovery.Fleet, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%s: %w", path, errEmpty)
	}
	var doc document
	var tree yaml.Node
	strict := yaml.NewDecoder(bytes.NewReader(data))
	strict.KnownFields(true)
	if err := strict.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, located(path, err)
	}
	if err := strict.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is a second YAML document after ---; put everything into one", path)
	}
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return nil, located(path, err)
	}
	if doc.Services == nil {
		return nil, fmt.Errorf("%s: there is no services; to have no instances write services: {}", path)
	}
	lines := lineNumbers(&tree)
	world := map[discovery.Service]discovery.Fleet{}
	var wrong []error
	for service, entries := range doc.Services {
		seen := map[discovery.InstanceID]bool{}
		var all []discovery.Registration
		for i, e := range entries {
			if err := e.check(seen); err != nil {
				wrong = append(wrong, fmt.Errorf("%s:%d: %w", path, lines[place{service, i}], err))
			}
			seen[e.ID] = true
			all = append(all, e.registration())
		}
		world[service] = discovery.NewFleet(all)
	}
	if len(wrong) > 0 {
		return nil, oneLine(wrong)
	}
	return world, nil
}

func (e entry) check(seen map[discovery.InstanceID]bool) error {
	switch {
	case e.ID == "":
		return errors.New("the instance has no id; give it one")
	case seen[e.ID]:
		return fmt.Errorf("there is a second instance with the id %s; give each its own", e.ID)
	}
	switch e.Health {
	case "", discovery.Passing, discovery.Warning, discovery.Critical, discovery.Maintenance:
		return nil
	}
	return fmt.Errorf("%s has the health %q; use passing, warning, critical or maintenance", e.ID, e.Health)
}

func (e entry) registration() discovery.Registration {
	r := discovery.Registration{
		ID: e.ID, Colour: e.Colour, Health: e.Health, Drain: e.Drain, KillAfter: e.KillAfter, Version: e.Version, Address: e.Address,
	}
	if r.Health == "" {
		r.Health = discovery.Passing
	}
	if e.Capacity != nil {
		r.Capacity = strconv.Itoa(*e.Capacity)
	}
	if host, port, err := net.SplitHostPort(e.Address); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			r.Address, r.Port = host, int(n)
		}
	}
	switch _, err := discovery.ParseColour(string(e.Colour)); {
	case e.Colour == "":
		r.Unfit = "it has no colour; give it colour: blue or colour: green"
	case err != nil:
		r.Unfit = fmt.Sprintf("its colour %v", err)
	}
	return r
}

// place is the i-th instance of a service.
type place struct {
	service discovery.Service
	i       int
}

// lineNumbers says on which line each instance begins.
func lineNumbers(tree *yaml.Node) map[place]int {
	lines := map[place]int{}
	for _, document := range tree.Content {
		for _, services := range pairs(document) {
			for service, entries := range pairs(services) {
				for i, e := range resolve(entries).Content {
					lines[place{discovery.Service(service), i}] = e.Line
				}
			}
		}
	}
	return lines
}

func pairs(n *yaml.Node) map[string]*yaml.Node {
	all := map[string]*yaml.Node{}
	for content := resolve(n).Content; len(content) >= 2; content = content[2:] {
		all[content[0].Value] = content[1]
	}
	return all
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

var (
	lineOf     = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)
	unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)
	goTypes    = strings.NewReplacer("map[discovery.Service][]file.entry", "a map of services", "[]file.entry", "a list of instances",
		"file.entry", "an instance", "file.document", "a map with services")
)

// located puts path and line in front of what YAML has to say.
func located(path string, err error) error {
	texts := []string{err.Error()}
	if t, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = t.Errors
	}
	var all []error
	for _, text := range texts {
		text = strings.Join(strings.Fields(text), " ")
		text = goTypes.Replace(unknownKey.ReplaceAllString(text, `unknown key $1`))
		if m := lineOf.FindStringSubmatch(text); m != nil {
			text = m[1] + ": " + text[len(m[0]):]
		} else {
			text = " " + strings.TrimPrefix(text, "yaml: ")
		}
		all = append(all, fmt.Errorf("%s:%s", path, text))
	}
	return oneLine(all)
}

// oneLine joins errors into one that fits a log line and a status line, in an
// order that does not change from read to read.
func oneLine(all []error) error {
	texts := make([]string, len(all))
	for i, err := range all {
		texts[i] = err.Error()
	}
	slices.Sort(texts)
	return errors.New(strings.Join(texts, "; "))
}
