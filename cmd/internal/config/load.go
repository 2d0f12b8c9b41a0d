package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/internal/secret"
	"github.com/sluice-proxy/sluice/rollout/policy"
)

const mostConfig = 1 << 20 // bytes of a configuration, and of a file that it names

// Load reads and checks a configuration and the token files it names. It touches
// no network and changes nothing. The error is always a Problems with everything
// that is wrong.
func Load(path string) (*Config, error) {
	if err := regular(path, mostConfig); err != nil {
		return nil, Problems{{File: path, Text: err.Error()}}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, Problems{{File: path, Text: err.Error()}}
	}
	return parse(path, data)
}

func parse(path string, data []byte) (*Config, error) {
	r := &reading{source: source{file: path, lines: map[string]int{}}}
	c := &Config{
		XDS: XDS{Listen: netip.MustParseAddrPort("127.0.0.1:18000")},
		API: API{Listen: netip.MustParseAddrPort("127.0.0.1:18001")},
	}
	if p := r.document(data, c); p != nil {
		return nil, Problems{*p}
	}
	r.complete(c)
	r.tokens(c)
	r.check(c)
	byLine := func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) }
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, byLine)
		return nil, r.problems
	}
	slices.SortStableFunc(r.notes, byLine)
	c.Notes, c.source = r.notes, r.source
	return c, nil
}

// document decodes the only YAML document there is. The problem it returns is
// one of syntax, after which nothing else can be said.
func (r *reading) document(data []byte, c *Config) *Problem {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil // the checks say what is missing
	}
	if err != nil {
		return r.syntax(err)
	}
	if err := dec.Decode(&second); err == nil {
		return &Problem{File: r.file, Line: second.Line, Text: "a second document starts here; the configuration is one"}
	} else if !errors.Is(err, io.EOF) {
		return r.syntax(err)
	}
	r.value(doc.Content[0], "", reflect.ValueOf(c).Elem())
	return nil
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s:(.*))$`)

func (r *reading) syntax(err error) *Problem {
	p := &Problem{File: r.file, Text: "no YAML: " + err.Error()}
	if m := syntaxLine.FindStringSubmatch(err.Error()); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.Text = "no YAML: " + m[2]
	}
	return p
}

func (c *Consul) defaults() {
	c.Address = cmp.Or(os.Getenv("CONSUL_HTTP_ADDR"), "127.0.0.1:8500")
	c.Tags = Tags{Blue: string(discovery.Blue), Green: string(discovery.Green)}
}

func (s *StateConsul) defaults() { s.Prefix = "sluice" }

func (s *Service) defaults() {
	s.Protocol = edge.HTTP
	s.Live = discovery.Blue
	s.Policy = policy.Default()
}

// complete fills in the defaults that depend on other keys, and joins relative
// paths to the configuration's folder.
func (r *reading) complete(c *Config) {
	if c.State.File == "" && c.State.Consul == nil {
		c.State.File = "sluice-state"
	}
	if s, d := c.State.Consul, c.Discovery.Consul; s != nil {
		if d == nil {
			d = new(Consul)
			d.defaults()
		}
		s.Address = cmp.Or(s.Address, d.Address)
		s.TokenFile = cmp.Or(s.TokenFile, d.TokenFile)
		s.Datacenter = cmp.Or(s.Datacenter, d.Datacenter)
	}
	for _, path := range c.paths() {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(filepath.Dir(r.file), *path)
		}
	}
	for i := range c.Services {
		s := &c.Services[i]
		if s.Listener == "" && len(c.Listeners) == 1 {
			s.Listener = c.Listeners[0].Name
		}
		s.ConsulService = cmp.Or(s.ConsulService, string(s.Name))
		for j, d := range s.Domains {
			s.Domains[j] = edge.Domain(d)
		}
		s.Protocol = cmp.Or(s.Protocol, edge.HTTP)
		if s.Protocol == edge.HTTP {
			s.Prefix = cmp.Or(s.Prefix, "/")
			if len(s.Domains) == 0 {
				s.Domains = []string{"*"}
			}
		}
	}
}

func (c *Config) paths() []*string {
	paths := []*string{&c.Discovery.File, &c.State.File, &c.API.TokenFile, &c.Drain.TokenFile, &c.Prometheus.TokenFile}
	if d := c.Discovery.Consul; d != nil {
		paths = append(paths, &d.TokenFile)
	}
	if s := c.State.Consul; s != nil {
		paths = append(paths, &s.TokenFile)
	}
	for _, s := range c.Services {
		for _, command := range s.commands() {
			if strings.ContainsRune(command[0], filepath.Separator) { // others are looked for on PATH
				paths = append(paths, &command[0])
			}
		}
	}
	return paths
}

func (r *reading) tokens(c *Config) {
	for _, t := range c.Tokens() {
		r.token(t.Key, t.File, t.Held)
	}
}

func (r *reading) token(key, path string, into *string) {
	if path == "" {
		return
	}
	if err := regular(path, mostConfig); err != nil {
		r.refuse(key, "%v; it must hold the token", err)
		return
	}
	token, err := secret.File(path)
	if err != nil {
		r.refuse(key, "%v", err)
		return
	}
	*into = token
}

// regular refuses what a reload could wait for for ever, as for a pipe or a
// device, and what is too large.
func regular(path string, most int64) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case info.Size() > most:
		return fmt.Errorf("%s has %d bytes; the most is %d", path, info.Size(), most)
	}
	return nil
}
