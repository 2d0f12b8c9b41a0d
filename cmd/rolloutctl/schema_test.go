package main

import (
	"bytes"
	"encoding/json"
	"testing"
)

// What schema prints is one JSON Schema, with or without -o json.
func TestSchemaIsPrinted(t *testing.T) {
	for _, args := range [][]string{{"schema"}, {"schema", "-o", "json"}} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &stdout, &stderr)
		var schema struct {
			Dialect    string                     `json:"$schema"`
			Properties map[string]json.RawMessage `json:"properties"`
		}
		if err := json.Unmarshal(stdout.Bytes(), &schema); err != nil || code != exitDone || schema.Dialect == "" || schema.Properties["services"] == nil {
			t.Errorf("%v: exit %d, %v\n%s%s", args, code, err, &stdout, &stderr)
		}
	}
}
