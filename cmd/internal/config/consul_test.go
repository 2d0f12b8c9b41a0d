package config

import (
	"os"
	"path/filepath"
	"testing"
)

// Consul's own variable counts where the file names no address.
func TestConsulAddress(t *testing.T) {
	for _, c := range []struct{ env, key, want string }{
		{"", "", "127.0.0.1:8500"},
		{"10.0.0.9:8500", "", "10.0.0.9:8500"},
		{"10.0.0.9:8500", "address: 'https://10.0.0.1:8501'", "https://10.0.0.1:8501"},
	} {
		t.Setenv("CONSUL_HTTP_ADDR", c.env)
		path := filepath.Join(t.TempDir(), "sluice.yaml")
		text := "discovery: {consul: {" + c.key + "}}\nstate: {consul: {}}\nlisteners: [{name: web, address: '0.0.0.0:1'}]\nservices: [{name: chat, consul_service: my chat}]\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if got.Discovery.Consul.Address != c.want || got.State.Consul.Address != c.want {
			t.Errorf("%+v: discovery at %s, state at %s", c, got.Discovery.Consul.Address, got.State.Consul.Address)
		}
	}
}
