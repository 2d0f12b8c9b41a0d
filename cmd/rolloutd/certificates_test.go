package main

import (
	"log/slog"
	"testing"

	"github.com/sluice-proxy/sluice/envoy"
)

// Envoys read the files of certificates again when the Secrets come in another spelling; nothing
// else is told anew. Before anything is published there is nothing to tell.
func TestCertificatesAreReread(t *testing.T) {
	c := mustLoad(t, "listeners: [{name: web, address: 0.0.0.0:8443, tls: {certificate: /c.pem, key: /k.pem}}, {name: open, address: 0.0.0.0:8080}]\n"+
		"services: [{name: chat, listener: web}, {name: more, listener: open}]")
	p := newPublisher(c, slog.New(slog.DiscardHandler))
	if n := p.reread(); n != 0 {
		t.Errorf("%d certificates before the first publish", n)
	}
	if refused := p.Publish(evenlyAll(c.Edge())); len(refused) > 0 {
		t.Fatal(refused)
	}
	for range 5 {
		before := p.server.Versions()
		if n := p.reread(); n != 16 {
			t.Errorf("%d certificates are read again", n)
		}
		after := p.server.Versions()
		if len(after) != len(before) {
			t.Errorf("%d resources, there were %d", len(after), len(before))
		}
		for ref, version := range after {
			if changed := before[ref] != version; changed != (ref.Type == envoy.SecretType) {
				t.Errorf("%s changed: %t", ref, changed)
			}
		}
	}
	p.configure(c)
	if refused := p.Publish(evenlyAll(c.Edge())); len(refused) > 0 {
		t.Fatal(refused)
	}
}
