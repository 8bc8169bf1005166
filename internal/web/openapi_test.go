package web

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the OpenAPI document anew")

// TestOpenAPIDocument holds the document to the routes and to the types of the
// answers; with -update it writes it.
func TestOpenAPIDocument(t *testing.T) {
	want, err := json.MarshalIndent(openAPIOf(t, routes()), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), string(openAPIDocument)); diff != "" {
		t.Errorf("openapi.json is out of date: run make generate (-want +got)\n%s", diff)
	}
}

type object = map[string]any

// openAPIOf writes the routes as OpenAPI 3.1.
func openAPIOf(t *testing.T, routes []route) object {
	s := newSchemas(t)
	paths := object{}
	for _, r := range routes {
		paths[r.path] = object{"get": operation(s, &r)}
	}
	s.add("Error", object{
		"type": "object", "description": "Why a request was refused.",
		"properties": object{"error": object{"type": "string"}}, "required": []string{"error"},
	})
	s.of(reflect.TypeFor[beatData]())
	s.of(reflect.TypeFor[endData]())
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "twwatch", "version": "v1",
			"description": "What twwatch sees of a host's TCP connections. Keys may be added to answers; none is taken away, and none changes its meaning. " +
				"Every path answers HEAD too. Answers are packed where Accept-Encoding allows gzip; those with an ETag heed If-None-Match. " +
				"Every refusal says why as {\"error\": …}. Without authentication, page and API are answered on loopback only unless --web.enable-api is given, " +
				"and under names that this host is known by.",
			"license": object{"name": "Apache 2.0", "identifier": "Apache-2.0"},
		},
		"paths":      paths,
		"components": object{"schemas": s.all},
	}
}

func operation(s *schemas, r *route) object {
	var parameters []any
	if r.id != "" {
		schema := object{"type": "string", "minLength": 1}
		parameters = append(parameters, object{"name": "id", "in": "path", "required": true, "description": r.id, "schema": schema})
	}
	for _, p := range r.parameters {
		parameter := object{"name": p.name, "in": "query", "description": p.about, "schema": p.schema}
		if p.many {
			parameter["schema"], parameter["style"], parameter["explode"] = object{"type": "array", "items": p.schema}, "form", false
		}
		parameters = append(parameters, parameter)
	}
	kind, _, _ := strings.Cut(r.kind, ";")
	content := object{}
	switch {
	case r.schema != "":
		content[kind] = object{"schema": s.named(r.schema)}
	case kind == "application/json":
		content[kind] = object{"schema": object{"type": "object"}}
	default:
		content[kind] = object{"schema": object{"type": "string"}}
	}
	if slices.ContainsFunc(r.parameters, func(p parameter) bool { return p.name == "format" }) {
		content["text/plain"] = object{"schema": object{"type": "string"}}
	}
	responses := object{"200": object{"description": "OK", "content": content}}
	for _, status := range append(everyStatus(), r.statuses...) {
		refused := object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}}
		if r.kind == asHTML && slices.Contains(r.statuses, status) {
			refused["text/html"] = object{"schema": object{"type": "string"}}
		}
		responses[strconv.Itoa(status)] = object{"description": http.StatusText(status), "content": refused}
	}
	name := strings.Trim(strings.NewReplacer("/api/v1/", "", "/-/", "", "/{id}", "_one", "/", "_", ".", "_").Replace(r.path), "_")
	if r.kind == asHTML {
		name = strings.TrimSuffix("page_"+name, "_")
	}
	op := object{"operationId": name, "summary": r.about, "responses": responses}
	if parameters != nil {
		op["parameters"] = parameters
	}
	return op
}

// everyStatus are the refusals that every path has.
func everyStatus() []int {
	return []int{
		http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge,
	}
}

func document(t *testing.T) object {
	t.Helper()
	var doc object
	decoder := json.NewDecoder(bytes.NewReader(openAPIDocument))
	decoder.UseNumber()
	if err := decoder.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// at follows keys into a decoded document.
func at(t *testing.T, v any, keys ...string) any {
	t.Helper()
	for _, key := range keys {
		o, ok := v.(object)
		if !ok || o[key] == nil {
			t.Fatalf("no %q in %v", key, v)
		}
		v = o[key]
	}
	return v
}

// The document is one: its references lead somewhere, its names are unique, and
// each list says how long it can be.
func TestOpenAPIDocumentIsSound(t *testing.T) {
	doc := document(t)
	all := at(t, doc, "components", "schemas").(object)
	used := map[string]bool{"Beat": true, "End": true}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case []any:
			for i, e := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), e)
			}
		case object:
			if ref, ok := v["$ref"].(string); ok {
				name, found := strings.CutPrefix(ref, "#/components/schemas/")
				used[name] = true
				if !found || all[name] == nil {
					t.Errorf("%s: %s leads nowhere", path, ref)
				}
			}
			if v["type"] == "array" && v["maxItems"] == nil && !strings.Contains(path, ".parameters") {
				t.Errorf("%s: a list without maxItems", path)
			}
			for key, e := range v {
				walk(path+"."+key, e)
			}
		}
	}
	walk("", doc)
	for name := range all {
		if !used[name] {
			t.Errorf("the schema %s is used by nothing", name)
		}
	}
	seen := map[string]string{}
	for path, item := range at(t, doc, "paths").(object) {
		id := at(t, item, "get", "operationId").(string)
		if seen[id] != "" {
			t.Errorf("%s and %s are both %s", path, seen[id], id)
		}
		seen[id] = path
		if strings.Contains(path, "{id}") != strings.Contains(fmt.Sprint(at(t, item, "get")), "in:path") {
			t.Errorf("%s: its id isn't among the parameters", path)
		}
	}
}
