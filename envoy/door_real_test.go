//go:build real

package envoy

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/envoy/edge"
	"github.com/sluice-proxy/sluice/rollout/desired"
)

// adds is a filter that gives each request a header.
func adds(key, value string) edge.Filter {
	return edge.Filter{Name: "adds-" + key, Config: map[string]any{
		"@type": httpFilterPrefix + "header_mutation.v3.HeaderMutation",
		"mutations": map[string]any{"request_mutations": []any{map[string]any{"append": map[string]any{
			"header": map[string]any{"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
		}}}},
	}}
}

// refuses is a filter that answers everything with 403.
func refuses() edge.Filter {
	return edge.Filter{Name: "nobody", Config: map[string]any{
		"@type": httpFilterPrefix + "rbac.v3.RBAC",
		"rules": map[string]any{"action": "DENY", "policies": map[string]any{"all": map[string]any{
			"permissions": []any{map[string]any{"any": true}}, "principals": []any{map[string]any{"any": true}},
		}}},
	}}
}

// Filters of one's own are set, changed and taken away by an Envoy of either kind, and a
// WebSocket from before lives through all of it.
func TestRealOwnFilters(t *testing.T) {
	at := mirror(t)
	for kind, lesser := range map[string]bool{"one door": false, "slots": true} {
		t.Run(kind, func(t *testing.T) {
			c := edge.Config{
				Listeners: []edge.Listener{{Name: "web", Address: freeAddr(t), HTTPFilters: []edge.Filter{adds("x-door", "first")}}},
				Services:  []edge.Service{{Name: "chat", Listener: "web"}},
			}
			web := c.Listeners[0].Address
			wishes := desired.Wishes{"chat": to("blue", map[discovery.Colour][]desired.Endpoint{"blue": serving(at)})}
			w := startAs(t, c, wishes, lesser)
			ws, _ := dialWS(t, "ws://"+web.String()+"/ws")
			answers := func(status int, with, without string) {
				t.Helper()
				for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
					got, body := asks(t, web, "GET / HTTP/1.1\nHost: x")
					if got == status && strings.Contains(body, with) && (without == "" || !strings.Contains(body, without)) {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("%d, %q; want %d with %q and without %q", got, body, status, with, without)
					}
				}
				chats(t, ws)
			}
			tell := func(filters ...edge.Filter) {
				t.Helper()
				w.config = edge.Config{Listeners: []edge.Listener{{Name: "web", Address: web, HTTPFilters: filters}}, Services: c.Services}
				w.tellAndWait(t, wishes, ExtensionType)
			}
			answers(200, "X-Door: first", "")
			tell(adds("x-door", "second"), adds("x-more", "yes"))
			answers(200, "X-Door: second\r\nX-Envoy", "first")
			answers(200, "X-More: yes", "")
			tell(adds("x-door", "third"), refuses())
			answers(403, "", "")
			tell()
			answers(200, "GET x", "X-Door")
			tell(adds("a", "1"), adds("b", "2"), adds("c", "3"), adds("d", "4"), adds("e", "5"))
			if lesser {
				answers(503, "", "") // not all of them fit
			} else {
				answers(200, "E: 5", "")
			}
			tell()
			answers(200, "GET x", "X-Door")
		})
	}
}
