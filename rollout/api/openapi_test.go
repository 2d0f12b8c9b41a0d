package api_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	comments "github.com/invopop/jsonschema"
	"golang.org/x/tools/txtar"

	"github.com/sluice-proxy/sluice/discovery"
	"github.com/sluice-proxy/sluice/rollout"
	"github.com/sluice-proxy/sluice/rollout/api"
	"github.com/sluice-proxy/sluice/rollout/policy"
	"github.com/sluice-proxy/sluice/rollout/state"
	"github.com/sluice-proxy/sluice/rollout/units"
)

// operation is one route: what is sent and what is answered. A nil type is no body,
// or one that is not described.
type operation struct {
	says         string
	body, answer reflect.Type
	query        []string
}

// Bodies of commands that are no words of the package's surface.
type (
	saying struct {
		Message state.Message `json:"message,omitempty"`
	}
	pacing struct {
		units.Funnel
		Message state.Message `json:"message,omitempty"`
	}
	adoption struct {
		Live discovery.Colour `json:"live"`
	}
	refusal struct {
		Error struct {
			Code rollout.Code `json:"code"`
			Text string       `json:"text"`
		} `json:"error"`
	}
)

// operations are the routes under /v1, as the handler writes them.
func operations() map[string]operation {
	is := reflect.TypeFor[rollout.Answer]()
	said := operation{body: reflect.TypeFor[saying](), answer: is}
	does := func(says string, o operation) operation { o.says = says; return o }
	return map[string]operation{
		"GET /v1/version":                     {says: "the release of this rolloutd", answer: reflect.TypeFor[api.Version]()},
		"GET /v1/openapi.json":                {says: "this description"},
		"GET /v1/status":                      {says: "every service", answer: reflect.TypeFor[api.World]()},
		"GET /v1/watch":                       {says: "a stream of JSON lines, a whole status per change", answer: reflect.TypeFor[api.World](), query: []string{"service"}},
		"GET /v1/instances":                   {says: "every instance, by service", answer: reflect.TypeFor[[]api.ServiceInstances]()},
		"GET /v1/proxies":                     {says: "every proxy, by node", answer: reflect.TypeFor[[]api.Proxy]()},
		"GET /v1/reports":                     {says: "what proxies report here, for the other replicas; it changes with releases"},
		"POST /v1/proxies/forget":             {says: "has no service wait for a lost proxy any more", body: reflect.TypeFor[api.Forgetting](), answer: is},
		"POST /v1/certs/reload":               {says: "has the proxies read the files of their certificates again", answer: is},
		"GET /v1/services/{service}":          {says: "one service", answer: reflect.TypeFor[api.Status]()},
		"GET /v1/services/{service}/history":  {says: "the finished rollouts, oldest first", answer: reflect.TypeFor[[]state.Record]()},
		"GET /v1/services/{service}/plan":     {says: "what a promotion would do", answer: reflect.TypeFor[rollout.Plan](), query: []string{"target", "close", "every", "grace", "canary", "soak", "window", "stagger", "stagger_soak", "deadline"}},
		"POST /v1/services/{service}/promote": {says: "moves the service to a colour", body: reflect.TypeFor[api.Promotion](), answer: is},
		"POST /v1/services/{service}/pause":   does("closes nothing more until resume", said),
		"POST /v1/services/{service}/resume":  does("ends a pause", said),
		"POST /v1/services/{service}/abort":   does("goes back, paced", said),
		"POST /v1/services/{service}/pace":    {says: "changes the cap of the running rollout", body: reflect.TypeFor[pacing](), answer: is},
		"POST /v1/services/{service}/adopt":   {says: "says which colour is live where it is not known", body: reflect.TypeFor[adoption](), answer: is},
	}
}

// bodies are the words that are read strictly.
func bodies() (all []reflect.Type) {
	for _, o := range operations() {
		if o.body != nil {
			all = append(all, o.body)
		}
	}
	return all
}

// open lets an answer have keys that a later release adds.
func open(s *jsonschema.Schema) {
	if s == nil {
		return
	}
	if s.Properties != nil {
		s.AdditionalProperties = nil
	}
	for _, key := range s.Properties {
		open(key)
	}
	open(s.Items)
}

// kinds are the words that write themselves.
func kinds() map[reflect.Type]*jsonschema.Schema {
	text := func(example any) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Examples: []any{example}}
	}
	return map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[units.Duration](): text("1m30s"),
		reflect.TypeFor[units.Share]():    text("5%"),
		reflect.TypeFor[units.Portion]():  text("25%"),
		reflect.TypeFor[units.Window]():   {Types: []string{"integer", "string"}, Examples: []any{3000, "auto"}},
		reflect.TypeFor[netip.AddrPort](): text("10.0.0.1:9000"),
	}
}

func schemaOf(t *testing.T, of reflect.Type, said map[string]string) *jsonschema.Schema {
	s, err := jsonschema.ForType(of, &jsonschema.ForOptions{TypeSchemas: kinds()})
	if err != nil {
		t.Fatalf("%v: %v", of, err)
	}
	explain(s, of, said)
	return s
}

// explain gives each key its doc comment.
func explain(s *jsonschema.Schema, of reflect.Type, said map[string]string) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if _, itself := kinds()[of]; itself {
		return
	}
	switch of.Kind() {
	case reflect.Slice:
		if s.Items != nil {
			explain(s.Items, of.Elem(), said)
		}
	case reflect.Struct:
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.Anonymous && name == "" {
				explain(s, field.Type, said)
				continue
			}
			if key := s.Properties[name]; key != nil {
				key.Description = said[of.PkgPath()+"."+of.Name()+"."+field.Name]
				explain(key, field.Type, said)
			}
		}
	}
}

// description is the OpenAPI document.
func description(t *testing.T) map[string]any {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../..") // doc comments are found by their folder
	said := comments.Reflector{}
	for _, dir := range []string{"./rollout/api", "./rollout", "./discovery"} {
		if err := said.AddGoComments("github.com/sluice-proxy/sluice", dir, comments.WithFullComment()); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(here)
	schemas := map[string]any{}
	ref := func(of reflect.Type) map[string]any {
		name := strings.ToUpper(of.Name()[:1]) + of.Name()[1:]
		if schemas[name] == nil {
			schema := schemaOf(t, of, said.CommentMap)
			if !slices.Contains(bodies(), of) {
				open(schema)
			}
			schemas[name] = schema
		}
		return map[string]any{"$ref": "#/components/schemas/" + name}
	}
	content := func(kind string, of reflect.Type) map[string]any {
		var schema map[string]any
		if of.Kind() == reflect.Slice {
			schema = map[string]any{"type": "array", "items": ref(of.Elem())}
		} else {
			schema = ref(of)
		}
		return map[string]any{kind: map[string]any{"schema": schema}}
	}
	refused := map[string]any{"description": "refused: nothing was changed", "content": content("application/json", reflect.TypeFor[refusal]())}
	paths := map[string]any{}
	for route, o := range operations() {
		method, path, _ := strings.Cut(route, " ")
		answer := map[string]any{"description": o.says}
		if o.answer != nil {
			answer["content"] = content(kindOf(path), o.answer)
		}
		op := map[string]any{"summary": o.says, "responses": map[string]any{"200": answer, "default": map[string]any{"$ref": "#/components/responses/refused"}}}
		if o.body != nil {
			op["requestBody"] = map[string]any{"content": content("application/json", o.body)}
		}
		var parameters []any
		if strings.Contains(path, "{service}") {
			parameters = append(parameters, map[string]any{"name": "service", "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
		}
		for _, q := range o.query {
			parameters = append(parameters, map[string]any{"name": q, "in": "query", "required": q == "target", "schema": map[string]any{"type": "string"}})
		}
		if parameters != nil {
			op["parameters"] = parameters
		}
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path].(map[string]any)[strings.ToLower(method)] = op
	}
	return map[string]any{
		"openapi":    "3.1.0",
		"info":       map[string]any{"title": "rolloutd", "version": "1", "description": "The operator's side of rolloutd. Keys may be added; none is renamed."},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas, "responses": map[string]any{"refused": refused}, "securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}}},
		"security":   []any{map[string]any{}, map[string]any{"token": []any{}}},
	}
}

func kindOf(path string) string {
	if path == "/v1/watch" {
		return "application/jsonl"
	}
	return "application/json"
}

// openapi.json is what the words and their doc comments say. Run with -update after a
// change.
func TestOpenAPI(t *testing.T) {
	text, err := json.MarshalIndent(description(t), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile("openapi.json", text, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(text, api.OpenAPI) {
		t.Errorf("openapi.json is not what the words say; run with -update and look at the difference")
	}
	// The routes are the handler's.
	handler, err := os.ReadFile("handler.go")
	if err != nil {
		t.Fatal(err)
	}
	all := operations()
	found := regexp.MustCompile(`v1\.HandleFunc\("([A-Z]+ /v1/[^"]+)"`).FindAllSubmatch(handler, -1)
	for _, m := range found {
		if _, ok := all[string(m[1])]; !ok {
			t.Errorf("%s is not described", m[1])
		}
	}
	if len(found) != len(all) {
		t.Errorf("%d routes, %d are described", len(found), len(all))
	}
}

// Every golden request and answer is as it is described.
func TestAnswersAreAsDescribed(t *testing.T) {
	resolve := func(of reflect.Type) *jsonschema.Resolved {
		r, err := schemaOf(t, of, nil).Resolve(nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	refused := resolve(reflect.TypeFor[refusal]())
	used := map[string]bool{}
	archives, err := filepath.Glob("testdata/v1/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no golden answers: %v", err)
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			title, _, _ := strings.Cut(f.Name, " @ ")
			method, rest, _ := strings.Cut(title, " ")
			target, body, _ := strings.Cut(rest, " ")
			target, _, _ = strings.Cut(target, "?")
			route := method + " " + regexp.MustCompile(`^/v1/services/[^/]+`).ReplaceAllString(target, "/v1/services/{service}")
			status, answer, _ := strings.Cut(string(f.Data), "\n")
			o, described := operations()[route]
			if !described {
				if !strings.HasPrefix(status, "404") && !strings.HasPrefix(status, "405") {
					t.Errorf("%s is not described", f.Name)
				}
				continue
			}
			schema := refused
			if strings.HasPrefix(status, "200") {
				used[route] = true
				schema = resolve(o.answer)
				if body != "" {
					valid(t, f.Name, resolve(o.body), body)
				}
			}
			for line := range strings.Lines(answer) {
				if strings.TrimSpace(line) != "" {
					valid(t, f.Name, schema, line)
				}
			}
		}
	}
	for route := range operations() {
		if !used[route] && !slices.Contains([]string{"GET /v1/reports", "GET /v1/openapi.json", "POST /v1/services/{service}/adopt"}, route) {
			t.Errorf("no golden answer shows %s", route)
		}
	}
	// A description that refuses nothing would be none.
	for of, wrong := range map[reflect.Type]string{
		reflect.TypeFor[api.World](): `{"at":"2026-01-01T00:00:00Z","services":[{"service":3}]}`, reflect.TypeFor[api.Promotion](): `{"target":"green","closed":1}`,
		reflect.TypeFor[rollout.Answer](): `{}`, reflect.TypeFor[policy.Overrides](): `{"every":3}`,
	} {
		var value any
		if err := json.Unmarshal([]byte(wrong), &value); err != nil {
			t.Fatal(err)
		}
		if resolve(of).Validate(value) == nil {
			t.Errorf("%v takes %s", of, wrong)
		}
	}
}

func valid(t *testing.T, name string, schema *jsonschema.Resolved, text string) {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}
