//go:build real

package rolloutd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/test/fleet"
)

// TestRealRefused: what Envoy refuses for a cause outside of it, a port that is taken and a
// folder of certificates that is not there yet, holds the promotions of the services behind
// it, no others', and ends by itself once the cause has ended.
func TestRealRefused(t *testing.T) {
	t.Parallel()
	w := start(t, plan{chats: 1, policy: halfPolicy})
	folder := filepath.Join(t.TempDir(), "certificates")
	taken, err := net.Listen("tcp", w.raw.String())
	w.must(err)
	defer taken.Close()
	secure := w.free()
	w.ctl.Kill()
	w.ctl, err = fleet.StartRolloutd(w.ctx, fleet.RolloutdOptions{
		Bin: programs(t), Dir: w.dir, Instances: w.instances,
		Rest: strings.Replace(w.rest, "{name: web, address: "+w.web.String()+"}",
			fmt.Sprintf("{name: web, address: %s, tls: {certificate: %s/web.pem, key: %[2]s/web.key}}", secure, folder), 1),
	})
	w.must(err)
	t.Cleanup(w.ctl.Kill)
	w.api, err = w.ctl.Client()
	w.must(err)
	p, _, err := fleet.StartEnvoy(w.ctx, fleet.EnvoyOptions{Node: "edge-1", XDS: w.ctl.XDS, Dir: w.dir})
	w.must(err)
	t.Cleanup(p.Kill)

	w.await(chat, "the secret to be refused", func(st api.Status) bool {
		return len(st.Proxies.Nacks) == 1 && strings.Contains(st.Proxies.Nacks[0].Message, "Secret web")
	})
	w.await(line, "the listener to be refused", func(st api.Status) bool {
		return len(st.Proxies.Nacks) == 1 && strings.Contains(st.Proxies.Nacks[0].Message, "Listener raw")
	})
	answer, err := w.api.Promote(w.ctx, line, api.Promotion{Target: "green", Force: true})
	w.must(err)
	w.awaitReason(line, rollout.Nacked)

	w.must(taken.Close())
	w.done(line, answer.Rollout)
	conn, err := net.Dial("tcp", w.raw.String())
	w.must(err)
	w.must(conn.Close())

	certificate(t, folder)
	w.await(chat, "the secret to be taken", func(st api.Status) bool { return len(st.Proxies.Nacks) == 0 })
	w.until("TLS", func() error {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", secure.String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// certificate makes a folder with one, for itself.
func certificate(t *testing.T, folder string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"web"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, self, self, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	temporary := folder + ".new"
	if err := os.Mkdir(temporary, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"web.pem": {Type: "CERTIFICATE", Bytes: der}, "web.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(temporary, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(temporary, folder); err != nil {
		t.Fatal(err)
	}
}
