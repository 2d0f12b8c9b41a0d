package config

import _ "embed"

// Schema is the JSON Schema of a configuration, for editors. It knows keys and the
// kinds of their values; Load knows all the rules. It is made of the doc comments
// and tested against Load.
//
//go:embed schema.json
var Schema []byte
