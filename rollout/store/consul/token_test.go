//go:build real

package consul

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// TestTokens: a token that may not do it is an error with its way out, never an
// empty world or a lost race.
func TestTokens(t *testing.T) {
	const root = "6e5e1a55-0d5c-4b7a-9d4c-7d3c7e8a9b10"
	address := guardedAgent(t, root)
	admin := store(t, Options{Address: address, Token: root})
	first := replace(t, admin, "chat", state.Stored{}, encoded(t, "chat", 1))

	mayWrite := store(t, Options{Address: address, Token: token(t, admin.client, `key_prefix "sluice/" { policy = "write" }`)})
	if all := load(t, mayWrite); len(all) != 1 {
		t.Errorf("got %d states", len(all))
	}
	replace(t, mayWrite, "chat", first, encoded(t, "chat", 2))

	for name, rules := range map[string]string{
		"elsewhere":    `key_prefix "other/" { policy = "write" }`,
		"one key only": `key "sluice/state/feed" { policy = "write" }`,
	} {
		t.Run(name, func(t *testing.T) {
			s := store(t, Options{Address: address, Token: token(t, admin.client, rules)})
			if all, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "sluice/state/") {
				t.Errorf("load: got %d states, %v", len(all), err)
			}
			_, err := s.Replace(t.Context(), "chat", first, encoded(t, "chat", 3))
			if err == nil || errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "store Consul key sluice/state/chat: ") {
				t.Errorf("replace: got %v", err)
			}
			t.Log(err)
		})
	}
}

// token makes a token with these rules.
func token(t *testing.T, c *api.Client, rules string) string {
	t.Helper()
	policy, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: fmt.Sprintf("p%d", time.Now().UnixNano()), Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made.SecretID
}

// guardedAgent is a Consul that lets nobody do anything without a token.
func guardedAgent(t *testing.T, root string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	path, err := fleet.ConsulPath()
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]uint16{}
	for _, name := range []string{"http", "server", "serf-lan", "serf-wan"} {
		a, err := fleet.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		ports[name] = a.Port()
	}
	command := []string{path, "agent", "-server", "-bootstrap-expect=1", "-node=guarded", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-data-dir=" + t.TempDir(), "-log-level=warn", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-disable-host-node-id=true",
		"-hcl=disable_update_check = true", "-hcl=performance { raft_multiplier = 1 }",
		fmt.Sprintf("-hcl=acl { enabled = true, default_policy = \"deny\", tokens { initial_management = %q, agent = %q } }", root, root)}
	for name, port := range ports {
		command = append(command, fmt.Sprintf("-%s-port=%d", name, port))
	}
	p, err := fleet.Start("consul", "", command...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	address := fmt.Sprintf("127.0.0.1:%d", ports["http"])
	s := store(t, Options{Address: address, Token: root})
	if err := p.Await(ctx, func(ctx context.Context) error {
		_, err := s.Load(ctx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return address
}
