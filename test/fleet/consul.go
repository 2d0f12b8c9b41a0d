package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Consul is a real Consul agent on loopback: one server, its own leader.
type Consul struct {
	*Process
	// HTTP is where its API listens.
	HTTP netip.AddrPort
}

// StartConsul starts an agent on free ports with its data in dir, and waits until
// it leads itself. The data stays when it is killed, so that the same dir goes on
// with the same catalogue and another dir starts with an empty one. It asks no
// update server and sends no telemetry.
func StartConsul(ctx context.Context, dir string) (*Consul, error) {
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	return StartConsulAt(ctx, addr, dir)
}

// StartConsulAt is StartConsul with the API at addr: where another agent was
// before, for instance.
func StartConsulAt(ctx context.Context, addr netip.AddrPort, dir string) (*Consul, error) {
	path, err := ConsulPath()
	if err != nil {
		return nil, err
	}
	var ports [4]uint16
	for i := range ports {
		free, err := FreeAddr()
		if err != nil {
			return nil, err
		}
		ports[i] = free.Port()
	}
	p, err := Start("consul", filepath.Join(dir, "consul.log"), path, "agent", "-server", "-bootstrap-expect=1",
		"-node=fleet", "-datacenter=dc1", "-bind=127.0.0.1", "-client=127.0.0.1", "-data-dir="+dir, "-log-level=warn",
		"-http-port="+strconv.Itoa(int(addr.Port())), "-server-port="+strconv.Itoa(int(ports[0])),
		"-serf-lan-port="+strconv.Itoa(int(ports[1])), "-serf-wan-port="+strconv.Itoa(int(ports[2])),
		"-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-disable-host-node-id=true",
		"-hcl=disable_update_check = true", "-hcl=performance { raft_multiplier = 1 }", "-hcl=leave_on_terminate = false")
	if err != nil {
		return nil, err
	}
	c := &Consul{Process: p, HTTP: addr}
	if err := p.Await(ctx, c.leads); err != nil {
		p.Kill()
		return nil, err
	}
	return c, nil
}

// leads is a readiness check: the agent has a leader and has put itself into the
// catalogue, which is when registrations are accepted.
func (c *Consul) leads(ctx context.Context) error {
	leader, err := c.get(ctx, "/v1/status/leader")
	if err != nil {
		return err
	}
	if !strings.Contains(leader, ":") {
		return fmt.Errorf("consul at %s has no leader yet", c.HTTP)
	}
	catalogue, err := c.get(ctx, "/v1/catalog/nodes?consistent")
	if err != nil {
		return err
	}
	var nodes []json.RawMessage
	if err := json.Unmarshal([]byte(catalogue), &nodes); err != nil || len(nodes) == 0 {
		return fmt.Errorf("consul at %s is not in its own catalogue yet: %s", c.HTTP, catalogue)
	}
	return nil
}

func (c *Consul) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.HTTP.String()+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("consul at %s answered %s: %s", c.HTTP, resp.Status, body)
	}
	return string(body), nil
}
