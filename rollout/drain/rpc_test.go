package drain

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// However the end of a stream is cut into writes, it says unavailable once the stream was
// told to go; what was an answer stays one.
func TestEndsOfRPC(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte("grpc-message: context canceled\r\ngrpc-status: 1\r\n"))
	_ = z.Close()
	message := envelope(0, []byte("\x02\x80 a message"))
	for name, tc := range map[string]struct {
		kind  string
		all   []byte
		want  string
		left  bool // it was told to go
		given bool // … and gets a ticket with that
	}{
		"Connect":          {"application/connect+json", slices.Concat(message, envelope(0x02, []byte(`{"error":{"code":"canceled"}}`))), `"code":"unavailable"`, true, true},
		"gRPC-Web":         {"application/grpc-web+proto", slices.Concat(message, envelope(0x80, []byte("grpc-status: 1\r\n"))), "grpc-status: 14", true, true},
		"gRPC-Web, zipped": {"application/grpc-web+proto", slices.Concat(message, envelope(0x81, zipped.Bytes())), "grpc-status: 14", true, true},
		"an answer":        {"application/grpc-web+proto", slices.Concat(message, envelope(0x80, []byte("grpc-status: 0\r\n"))), "grpc-status: 0", true, false},
		"another error":    {"application/grpc-web+proto", slices.Concat(message, envelope(0x80, []byte("grpc-status: 5\r\n"))), "grpc-status: 5", true, false},
		"not told":         {"application/connect+json", slices.Concat(message, envelope(0x02, []byte(`{"error":{"code":"canceled"}}`))), `"code":"canceled"`, false, false},
		"another request":  {"application/json", []byte("\x02 anything"), "\x02 anything", true, false},
	} {
		for cut := range len(tc.all) {
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header.Set("Content-Type", tc.kind)
			c, w := callOf(r, func() string { return "k3v9x2pq" }), httptest.NewRecorder()
			for _, p := range [][]byte{tc.all[:cut], tc.all[cut:]} {
				if n, err := c.write(w, p, tc.left); n != len(p) || err != nil {
					t.Fatalf("%s: write returned %d, %v", name, n, err)
				}
			}
			if got := w.Body.String(); !strings.Contains(got, tc.want) || tc.kind != "application/json" && !strings.HasPrefix(got, string(message)) {
				t.Fatalf("%s, cut at %d: %q, want %q", name, cut, got, tc.want)
			} else if given := strings.Contains(got, "k3v9x2pq"); given != tc.given {
				t.Fatalf("%s, cut at %d: %q, has a ticket: %t", name, cut, got, given)
			}
		}
	}
}
