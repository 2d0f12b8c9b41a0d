// Package consul keeps the rollouts' state in Consul's KV store: one key per
// service, replaced by compare-and-swap.
package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout/state"
)

// Options say which Consul to use, and where in it.
type Options struct {
	// Address is "host:port", "http(s)://host:port" or "unix:///path". Token
	// needs key_prefix write on Prefix. What is left empty of these two, and all
	// of TLS, is taken from Consul's own environment variables
	// (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, CONSUL_CACERT, …).
	Address, Token string
	// TokenNow, if set, is asked for the token of each request, in place of Token: it
	// may be replaced. Empty is Consul's own.
	TokenNow func() string
	// Datacenter defaults to the agent's own. All replicas must name the same.
	Datacenter string
	// Prefix of all keys, without slashes at its ends. Default "sluice".
	Prefix string
}

// Store is the keys <prefix>/state/<service>. Methods may be called
// concurrently; how long they take is bounded by their context only.
type Store struct {
	client *api.Client
	prefix string
	token  func() string
}

// New checks the options and connects to nothing.
func New(o Options) (*Store, error) {
	c := api.DefaultConfig()
	c.Address = cmp.Or(o.Address, c.Address)
	c.Token = cmp.Or(o.Token, c.Token)
	c.Datacenter = o.Datacenter
	client, err := api.NewClient(c)
	if err != nil {
		return nil, fmt.Errorf("set up the Consul client: %w", err)
	}
	if o.TokenNow == nil {
		o.TokenNow = func() string { return "" } // the client's
	}
	return &Store{client: client, prefix: cmp.Or(o.Prefix, "sluice") + "/state/", token: o.TokenNow}, nil
}

// Load returns every stored state, read consistently. A key that does not hold
// exactly a state of the service it is named for is an error that names it; it
// is never overwritten.
func (s *Store) Load(ctx context.Context) (map[discovery.Service]state.Stored, error) {
	q := (&api.QueryOptions{RequireConsistent: true, Token: s.token()}).WithContext(ctx)
	pairs, meta, err := s.client.KV().List(s.prefix, q)
	if err != nil {
		return nil, fmt.Errorf("read the states under Consul key %s: %w", s.prefix, err)
	}
	// Without this a lost token would look like a world without any rollout.
	if meta.ResultsFilteredByACLs {
		return nil, fmt.Errorf("read the states under Consul key %s: the token may not see all of them; give it key_prefix %q write", s.prefix, s.prefix)
	}
	all := map[discovery.Service]state.Stored{}
	for _, p := range pairs {
		service, data, err := s.decode(p)
		if err != nil {
			return nil, fmt.Errorf("state in Consul key %s cannot be used: %w", p.Key, err)
		}
		all[service] = state.Stored{Data: data, Version: strconv.FormatUint(p.ModifyIndex, 10)}
	}
	return all, nil
}

func (s *Store) decode(p *api.KVPair) (discovery.Service, []byte, error) {
	name, err := url.PathUnescape(strings.TrimPrefix(p.Key, s.prefix))
	service := discovery.Service(name)
	if err != nil || s.key(service) != p.Key {
		return "", nil, errors.New("its name is no service's; delete it")
	}
	data, err := unpack(p.Value)
	if err != nil {
		return "", nil, fmt.Errorf("%w; restore it from a backup, or delete it to start its service anew on the configured live colour", err)
	}
	_, err = state.DecodeOf(service, data)
	return service, data, err
}

// Replace stores next if the key still is what old says. When it returns without
// an error next is committed; after state.ErrConflict nothing was written.
// After any other error, a timeout above all, either may be stored.
func (s *Store) Replace(ctx context.Context, service discovery.Service, old state.Stored, next []byte) (state.Stored, error) {
	key := s.key(service)
	fail := func(err error) (state.Stored, error) {
		return state.Stored{}, fmt.Errorf("store Consul key %s: %w", key, err)
	}
	if service == "" {
		return fail(errors.New("a state needs the name of its service"))
	}
	var index uint64 // 0: the key must not exist
	if old.Version != "" {
		var err error
		if index, err = strconv.ParseUint(old.Version, 10, 64); err != nil || index == 0 {
			return fail(fmt.Errorf("version %q is not one of Consul's", old.Version))
		}
	}
	value, err := pack(next)
	if err != nil {
		return fail(err)
	}
	// A transaction of one, because the leader's session check will join it.
	swap := api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: key, Value: value, Index: index}}}
	ok, answer, _, err := s.client.Txn().Txn(swap, (&api.QueryOptions{Token: s.token()}).WithContext(ctx))
	switch {
	case err != nil:
		return fail(err)
	case !ok:
		return fail(refused(answer.Errors))
	case len(answer.Results) != 1 || answer.Results[0].KV == nil:
		return fail(errors.New("the answer names no version"))
	}
	return state.Stored{Data: next, Version: strconv.FormatUint(answer.Results[0].KV.ModifyIndex, 10)}, nil
}

// refused says why a transaction was rolled back. Consul has no code for a lost
// race, only this text.
func refused(errs api.TxnErrors) error {
	if len(errs) == 1 && strings.HasSuffix(errs[0].What, "index is stale") {
		return state.ErrConflict
	}
	var all []error
	for _, e := range errs {
		all = append(all, errors.New(e.What))
	}
	return fmt.Errorf("refused: %w", errors.Join(all...))
}

func (s *Store) key(service discovery.Service) string {
	return s.prefix + url.PathEscape(string(service))
}
