package fleet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// get is one short request.
func get(ctx context.Context, url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// Accepts is a readiness check of one Envoy, by its admin interface: it has a
// listener at addr. Where Envoys share an address, a connection there proves
// that of one of them only.
func Accepts(admin, addr netip.AddrPort) func(context.Context) error {
	return func(ctx context.Context) error {
		_, body, err := get(ctx, "http://"+admin.String()+"/listeners")
		if err == nil && !strings.Contains(body, addr.String()) {
			err = fmt.Errorf("it has no listener at %s", addr)
		}
		return err
	}
}
