package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Own filters are read by Envoy's protos before anything starts or is reloaded.
func TestLoadReadsFilters(t *testing.T) {
	const prefix = "type.googleapis.com/envoy.extensions.filters.http."
	for _, c := range []struct{ filter, want string }{
		{`{name: f, typed_config: {"@type": "` + prefix + `lua.v3.Lua", default_source_code: {inline_string: "x"}}}`, ""},
		{`{name: f, typed_config: {"@type": "` + prefix + `lua.v3.Lua", source: 1}}`, `:5: listeners[0].http_filters[0].typed_config: is not what an Envoy would read`},
		{`{name: f, typed_config: {"@type": "` + prefix + `compressor.v3.Compressor"}}`, "CompressorLibrary: value is required"},
		{`{name: f, typed_config: {"@type": "` + prefix + `nobody.v3.Nobody"}}`, "is not what an Envoy would read"},
		{`{name: f, typed_config: {"@type": "` + prefix + `router.v3.Router"}}`, "ends the chain where it stands"},
		{`{name: f, typed_config: {"@type": "` + prefix + `composite.v3.Composite"}}`, "could hide a router"},
		{`{name: f, typed_config: {"@type": "type.googleapis.com/google.protobuf.Empty"}}`, "has no \"@type\" of an HTTP filter"},
		{`{name: f, typed_config: {? [1] : 2}}`, "cannot be read"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "s.yaml")
		text := "discovery: {file: i.yaml}\nlisteners:\n- name: web\n  address: 127.0.0.1:8080\n  http_filters: [" + c.filter + "]\nservices: [{name: chat}]\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		code := run(t.Context(), []string{"-check", path}, nil, &said)
		if want := min(len(c.want), 1); code != want || !strings.Contains(strings.ReplaceAll(said.String(), "\u00a0", " "), c.want) {
			t.Errorf("%s: %d, %q; want %d with %q", c.filter, code, said.String(), want, c.want)
		}
	}
}
