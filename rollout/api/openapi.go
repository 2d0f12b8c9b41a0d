package api

import (
	_ "embed"
	"net/http"
)

// OpenAPI describes /v1. It is made of the words and their doc comments, and held
// against the routes and the golden answers.
//
//go:embed openapi.json
var OpenAPI []byte

func describe(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(OpenAPI)
}
