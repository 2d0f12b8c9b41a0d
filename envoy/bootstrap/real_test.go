//go:build real

package bootstrap_test

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sluice-proxy/sluice/envoy/bootstrap"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// Envoy accepts what Write prints, started as its comment says.
func TestRealValidate(t *testing.T) {
	envoy, err := fleet.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]bootstrap.Options{
		"static":  {Node: "edge-1", XDS: "127.0.0.1:18000", Concurrency: 2},
		"ipv6":    {Node: "edge-1", XDS: "[::1]:18000", Admin: netip.MustParseAddrPort("[::1]:9901")},
		"dns":     {Node: "edge-1", XDS: "rolloutd.example.com:18000"},
		"quotes":  {Node: `"edge": {1} # \`, Cluster: "- 'eu'", XDS: "localhost:18000"},
		"unicode": {Node: "edge-ü-\u2028-🚀-%s-{{.Node}}", Cluster: "null", XDS: "127.0.0.1:18000"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := bootstrap.Write(&b, o); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "envoy.yaml")
			if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			args := append([]string{"--mode", "validate", "-c", file, "--log-level", "warning"}, bootstrap.Flags()...)
			if out, err := exec.CommandContext(t.Context(), envoy, args...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, &b)
			}
		})
	}
}

// Two Envoys on one machine, without a control plane: both live, each under its
// own name and with the week that keeps connections.
func TestRealStart(t *testing.T) {
	nowhere, err := fleet.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"edge-1", "edge-2"} {
		p, admin, err := fleet.StartEnvoy(t.Context(), fleet.EnvoyOptions{Node: node, XDS: nowhere, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		res, err := http.Get("http://" + admin.String() + "/server_info")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var info struct {
			Node    struct{ ID string }
			Options struct {
				DrainTime          string `json:"drain_time"`
				ParentShutdownTime string `json:"parent_shutdown_time"`
				Concurrency        int
			} `json:"command_line_options"`
		}
		if err := json.NewDecoder(res.Body).Decode(&info); err != nil {
			t.Fatal(err)
		}
		if o := info.Options; info.Node.ID != node || o.DrainTime != "604800s" || o.ParentShutdownTime != "691200s" || o.Concurrency != 1 {
			t.Errorf("%s runs as %+v", node, info)
		}
	}
}

// With localhost, which is ::1 first in many places, an Envoy finds a rolloutd that listens on
// 127.0.0.1 only.
func TestRealLocalhost(t *testing.T) {
	rolloutd, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer rolloutd.Close()
	_, port, _ := net.SplitHostPort(rolloutd.Addr().String())
	admin, err := fleet.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := bootstrap.Write(&b, bootstrap.Options{Node: "edge-1", XDS: "localhost:" + port, Admin: admin}); err != nil {
		t.Fatal(err)
	}
	path, err := fleet.EnvoyPath()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := fleet.Start("edge-1", file+".log", append([]string{path, "-c", file, "--disable-hot-restart", "--concurrency", "1"}, bootstrap.Flags()...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	conn, err := rolloutd.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
