package bootstrap

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGolden(t *testing.T) {
	for file, o := range map[string]Options{
		"testdata/static.yaml":    {Node: "edge-1", XDS: "10.0.0.2:18000"},
		"testdata/localhost.yaml": {Node: "edge-1", XDS: "localhost:18000"},
		"testdata/dns.yaml": {Node: `odd "name": #1 ü`, Cluster: "eu", XDS: "rolloutd.example.com:443",
			Admin: netip.MustParseAddrPort("[::1]:9902"), Concurrency: 4},
	} {
		var b bytes.Buffer
		if err := Write(&b, o); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("not as in %s; look at the difference after go test ./envoy/bootstrap -update\n%s", file, &b)
		}
	}
}

func TestRefused(t *testing.T) {
	for want, o := range map[string]Options{
		"node \"\"":         {XDS: "10.0.0.2:1"},
		"node \"a\\nb\"":    {Node: "a\nb", XDS: "10.0.0.2:1"},
		"cluster \"\\xff\"": {Node: "a", Cluster: "\xff", XDS: "10.0.0.2:1"},
		"xDS address \"\"":  {Node: "a"},
		"10.0.0.2:0":        {Node: "a", XDS: "10.0.0.2:0"},
		"10.0.0.2:65536":    {Node: "a", XDS: "10.0.0.2:65536"},
		":18000":            {Node: "a", XDS: ":18000"},
		"concurrency is -1": {Node: "a", XDS: "10.0.0.2:1", Concurrency: -1},
	} {
		var b bytes.Buffer
		if err := Write(&b, o); err == nil || !strings.Contains(err.Error(), want) || b.Len() > 0 {
			t.Errorf("%+v: %v, want %q in it, and nothing written", o, err, want)
		}
	}
}

// Whatever the names, they arrive as they are and nothing else changes.
func FuzzNames(f *testing.F) {
	f.Add("edge-1", "edge", "host")
	f.Add("\": {}\n#", "{{.Node}}", "a b")
	f.Add("\u2028\U0001f680\x7f", "'\\", "::1")
	f.Fuzz(func(t *testing.T, node, cluster, host string) {
		var b bytes.Buffer
		if err := Write(&b, Options{Node: node, Cluster: cluster, XDS: "[" + host + "]:80"}); err != nil {
			return
		}
		var got struct {
			Node   struct{ ID, Cluster string }
			Static struct {
				Clusters []struct {
					Load struct {
						Endpoints []struct {
							LB []struct {
								Endpoint struct {
									Address struct {
										Socket struct{ Address string } `yaml:"socket_address"`
									}
								}
							} `yaml:"lb_endpoints"`
						}
					} `yaml:"load_assignment"`
				}
			} `yaml:"static_resources"`
		}
		if err := yaml.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatalf("%v\n%s", err, &b)
		}
		at := got.Static.Clusters[0].Load.Endpoints[0].LB[0].Endpoint.Address.Socket.Address
		if got.Node.ID != node || cluster != "" && got.Node.Cluster != cluster || at != host {
			t.Errorf("wrote %q %q %q, read %q %q %q", node, cluster, host, got.Node.ID, got.Node.Cluster, at)
		}
	})
}
