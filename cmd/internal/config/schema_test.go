package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	checker "github.com/google/jsonschema-go/jsonschema"
	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-proxy/sluice/rollout/units"
)

// The schema is what the types and their doc comments say. Run with -update after
// a change.
func TestSchema(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../../..") // doc comments are found by their folder
	made := jsonschema.Reflector{FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, DoNotReference: true, Anonymous: true, Mapper: asWritten}
	for _, dir := range []string{"./cmd/internal/config", "./envoy/edge", "./rollout/policy"} {
		if err := made.AddGoComments("github.com/sluice-proxy/sluice", dir, jsonschema.WithFullComment()); err != nil {
			t.Fatal(err)
		}
	}
	schema := made.Reflect(&Config{})
	schema.Title = "Configuration of rolloutd"
	text, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile(filepath.Join(here, "schema.json"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(text, Schema) {
		t.Errorf("schema.json is not what the types say:\n%s", text)
	}
}

// asWritten is how a value stands in YAML whose type reads its own text; nil leaves
// it to what its kind says.
func asWritten(of reflect.Type) *jsonschema.Schema {
	switch {
	case of == reflect.TypeFor[units.Funnel]():
		object := jsonschema.NewProperties()
		object.Set("close", &jsonschema.Schema{Type: "integer", Description: "The most connections that a step closes."})
		object.Set("every", &jsonschema.Schema{Type: "string", Description: "How long a step takes, such as 3s."})
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "string", Pattern: "^[0-9]+/", Examples: []any{"500/3s"}},
			{Type: "object", Properties: object, AdditionalProperties: jsonschema.FalseSchema},
		}}
	case of.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) || reflect.PointerTo(of).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		// 0 and 3000 are text, too, where the type says what it reads.
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}}}
	}
	return nil
}

// What loads, the schema accepts: an editor must not draw lines below what is right.
// What it can know to be wrong, it refuses.
func TestSchemaAgreesWithLoad(t *testing.T) {
	var schema checker.Schema
	if err := json.Unmarshal(Schema, &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(text string) error {
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		return resolved.Validate(value)
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var valid []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		if strings.Contains(m[1], "discovery:") {
			valid = append(valid, m[1])
		}
	}
	for _, file := range []string{"full.yaml", "small.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		valid = append(valid, string(text))
	}
	for _, text := range valid {
		if err := check(text); err != nil {
			t.Errorf("%v\nof\n%s", err, text)
		}
	}
	for _, wrong := range []string{
		"discoverry: {}", "listeners: {}", "listeners: [{nam: web}]", "services: [{name: 3}]", "services: [{polcy: {}}]",
		"services: [{policy: {funnel: {close: many}}}]", "services: [{policy: {funnel: [5]}}]", "services: [{policy: {capacity: lots}}]",
		"services: [{policy: {gates: [{quiry: x}]}}]", "services: [{policy: {stagger: {in_place: perhaps}}}]", "drain: {token: x}",
	} {
		if err := check(wrong); err == nil {
			t.Errorf("the schema accepts %s", wrong)
		}
	}
	// Every key of the types is in it.
	for _, key := range slices.Concat(keys(reflect.TypeFor[Config]()), keys(reflect.TypeFor[Service]()), keys(reflect.TypeFor[Consul]())) {
		if !bytes.Contains(Schema, []byte(`"`+key+`": {`)) {
			t.Errorf("the schema has no key %s", key)
		}
	}
}
