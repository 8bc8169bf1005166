package web

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/record"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/hub"
)

// fullReport is the model's own example, in which every key has a value.
func fullReport(t *testing.T) *snapshot.Report {
	t.Helper()
	data, err := os.ReadFile("../../collector/snapshot/testdata/full.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := snapshot.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fullSite answers from the full report, twice, and lists full sockets.
func fullSite(t *testing.T) http.Handler {
	t.Helper()
	first, second := fullReport(t), fullReport(t)
	second.Time = first.Time.Add(time.Second)
	h, _ := publish(t, first, second)
	cfg := config(h)
	cfg.Sockets = func(_ context.Context, q snapshot.SocketQuery) (any, error) {
		list := &snapshot.SocketList{
			Lost: "devices", Sample: &snapshot.SocketSample{Time: time.Unix(1, 0), Host: "h", Redacted: true, Sockets: 1, Of: 2},
			Sockets: []snapshot.Socket{{
				State: "close_wait", Local: "10.0.0.5:1", Remote: "10.0.0.9:2", Device: "eth0", AgeSeconds: new(1.5), AgeAtLeast: true, AgeAtMostSeconds: new(2.0),
				Timer: "keepalive", TimerSeconds: new(5.0), UID: new(uint32(33)), Inode: 7, Cookie: 8, PID: 9, Comm: "php-fpm",
			}, {State: "time_wait"}},
		}
		list.Sockets = list.Sockets[:min(len(list.Sockets), q.Limit)]
		return list, nil
	}
	return Handler(cfg)
}

// recordedSite answers from a recording of a real host in trouble.
func recordedSite(t *testing.T) http.Handler {
	t.Helper()
	h := hub.New(hub.Config{Source: record.Reports("../top/testdata/incident.jsonl.gz")})
	if err := h.Run(t.Context()); err != nil || !h.Ready() {
		t.Fatalf("the recording can't be read: %v", err)
	}
	return Handler(config(h))
}

// targets are requests for what each path has to tell; in full they bring out
// every key of every answer.
func targets(t *testing.T) map[string][]string {
	t.Helper()
	n := fullReport(t).Namespaces[0]
	return map[string][]string{
		"/api/v1/report": {""}, "/api/v1/stream": nil, "/api/v1/flows": {"", "?limit=1"}, "/api/v1/findings": {""},
		"/api/v1/flows/{id}": {snapshot.FlowID(n, &n.Flows[0])}, "/api/v1/sockets": {"", "?limit=1"}, "/api/v1/history": {""},
		"/api/v1/explain": {""}, "/api/v1/explain/{id}": {"time-wait", "redis", "phpredis-pconnect", "time-wait?format=text"},
		"/api/v1/openapi.json": {""}, "/metrics": {""}, "/-/healthy": {""}, "/-/ready": {""}, "/": {""}, "/assets/{id}": {"page.js"},
		"/explain": {""}, "/explain/{id}": {"time-wait"},
	}
}

// Every path of the document answers, every route is in the document, every
// answer is as its schema says, and every key of the schemas is in an answer.
func TestAnswersAreAsDocumented(t *testing.T) {
	site := fullSite(t)
	doc := document(t)
	paths := at(t, doc, "paths").(object)
	var served []string
	for _, r := range routes() {
		served = append(served, r.path)
	}
	slices.Sort(served)
	if documented := slices.Sorted(maps.Keys(paths)); !slices.Equal(served, documented) {
		t.Fatalf("routes %v\ndocumented %v", served, documented)
	}
	v := &validator{t: t, schemas: at(t, doc, "components", "schemas").(object), seen: map[string]bool{}}
	wants := targets(t)
	for path, item := range paths {
		targets, known := wants[path]
		if !known {
			t.Errorf("%s: this test has no request for it", path)
		}
		for _, target := range targets {
			r := ask(site, loopback, "GET", strings.TrimSuffix(path, idPart)+target)
			kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
			content := at(t, item, "get", "responses", strconv.Itoa(r.StatusCode), "content").(object)
			if r.StatusCode != http.StatusOK || content[kind] == nil {
				t.Errorf("%s%s: %d %s; documented are %v", path, target, r.StatusCode, kind, content)
				continue
			}
			if kind == asJSON {
				v.check(path+target, at(t, content[kind], "schema"), decodeAny(t, body(t, r)))
			}
		}
	}
	recorded := recordedSite(t)
	for _, path := range []string{"/api/v1/report", "/api/v1/flows", "/api/v1/findings", "/api/v1/history", "/api/v1/explain/{id}"} {
		schema := at(t, paths, path, "get", "responses", "200", "content", asJSON, "schema")
		v.check("recorded: "+path, schema, decodeAny(t, body(t, ask(recorded, loopback, "GET", strings.ReplaceAll(path, idPart, "close-wait")))))
	}
	v.check("beat", object{"$ref": "#/components/schemas/Beat"}, object{"age_seconds": json.Number("1"), "stale": false})
	v.check("end", object{"$ref": "#/components/schemas/End"}, object{"reason": ""})
	v.check("error", object{"$ref": "#/components/schemas/Error"}, decodeAny(t, string(errorBody("no"))))
	for name, schema := range v.schemas {
		for key := range at(t, schema, "properties").(object) {
			// Why it couldn't be counted stands where the count doesn't.
			if !v.seen[name+"."+key] && name+"."+key != "Text.now_missing" {
				t.Errorf("%s.%s is documented and in no answer", name, key)
			}
		}
	}
}

func decodeAny(t *testing.T, text string) any {
	t.Helper()
	var v any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	return v
}

// A validator holds values to the part of JSON schema that the document uses. It
// is stricter in one thing: a key that isn't in the schema is an error.
type validator struct {
	t       *testing.T
	schemas object
	seen    map[string]bool // schema.key
	errors  []string
}

func (v *validator) check(path string, schema, value any) {
	v.t.Helper()
	v.errors = nil
	v.value(path, "", schema.(object), value)
	for _, e := range v.errors {
		v.t.Error(e)
	}
}

func (v *validator) wrong(path, format string, args ...any) {
	v.errors = append(v.errors, path+": "+fmt.Sprintf(format, args...))
}

func (v *validator) value(path, name string, schema object, value any) {
	if ref, ok := schema["$ref"].(string); ok {
		name = strings.TrimPrefix(ref, "#/components/schemas/")
		schema = v.schemas[name].(object)
	}
	if either, ok := schema["anyOf"].([]any); ok { // something, or null
		if value != nil {
			v.value(path, name, either[0].(object), value)
		}
		return
	}
	kind := kindOf(value)
	if wanted := schema["type"]; wanted != nil && !slices.Contains(asList(wanted), any(kind)) && !(kind == "integer" && slices.Contains(asList(wanted), any("number"))) {
		v.wrong(path, "is %s, documented as %v", kind, wanted)
		return
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, value) {
		v.wrong(path, "%v is none of %v", value, enum)
	}
	switch value := value.(type) {
	case json.Number:
		v.number(path, schema, value)
	case string:
		if _, err := time.Parse(time.RFC3339Nano, value); schema["format"] == "date-time" && err != nil {
			v.wrong(path, "%q is no time", value)
		}
	case []any:
		if most, ok := limitIn(schema, "maxItems"); ok && float64(len(value)) > most {
			v.wrong(path, "%d elements, documented are %v at most", len(value), most)
		}
		for i, e := range value {
			v.value(fmt.Sprintf("%s[%d]", path, i), "", schema["items"].(object), e)
		}
	case object:
		v.object(path, name, schema, value)
	}
}

func (v *validator) number(path string, schema object, value json.Number) {
	f, err := value.Float64()
	if least, ok := limitIn(schema, "minimum"); ok && f < least {
		v.wrong(path, "%v is less than %v", value, least)
	}
	if most, ok := limitIn(schema, "maximum"); ok && f > most || err != nil {
		v.wrong(path, "%v is more than %v (%v)", value, most, err)
	}
}

func (v *validator) object(path, name string, schema, value object) {
	properties, _ := schema["properties"].(object)
	if properties == nil && schema["additionalProperties"] == nil {
		return // any object
	}
	required, _ := schema["required"].([]any)
	for _, key := range required {
		if _, ok := value[key.(string)]; !ok {
			v.wrong(path, "lacks %s", key)
		}
	}
	for key, e := range value {
		v.seen[name+"."+key] = true
		switch each, _ := schema["additionalProperties"].(object); {
		case properties[key] != nil:
			v.value(path+"."+key, "", properties[key].(object), e)
		case each != nil:
			v.value(path+"."+key, "", each, e)
		default:
			v.wrong(path, "%s is not documented", key)
		}
	}
}

func kindOf(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case json.Number:
		if strings.ContainsAny(value.String(), ".eE") {
			return "number"
		}
		return "integer"
	}
	return "object"
}

func asList(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

func limitIn(schema object, key string) (limit float64, ok bool) {
	n, ok := schema[key].(json.Number)
	if ok {
		limit, _ = n.Float64()
	}
	return limit, ok
}

// The validator sees what is wrong.
func TestValidator(t *testing.T) {
	schema := decodeAny(t, `{"$ref":"#/components/schemas/A"}`)
	schemas := decodeAny(t, `{"A":{"type":"object","required":["a"],"properties":{
		"a":{"type":"integer","minimum":1,"maximum":9},"b":{"type":["string","null"],"enum":["x",null]},"c":{"type":"array","maxItems":1,"items":{"type":"number"}},
		"d":{"anyOf":[{"$ref":"#/components/schemas/A"},{"type":"null"}]},"e":{"type":"object","additionalProperties":{"type":"boolean"}},"f":{"type":"string","format":"date-time"}}}}`).(object)
	for value, wrong := range map[string]string{
		`{"a":1,"b":null,"c":[1.5],"d":{"a":2},"e":{"k":true},"f":"2026-01-02T03:04:05.6Z"}`: "",
		`{"a":1,"d":null}`:     "",
		`[]`:                   "is array",
		`{}`:                   "lacks a",
		`{"a":0}`:              "less than",
		`{"a":10}`:             "more than",
		`{"a":1.5}`:            "is number",
		`{"a":null}`:           "is null",
		`{"a":1,"z":1}`:        "z is not documented",
		`{"a":1,"b":"y"}`:      "none of",
		`{"a":1,"c":[1,2]}`:    "2 elements",
		`{"a":1,"c":["1"]}`:    "c[0]: is string",
		`{"a":1,"d":{}}`:       "d: lacks a",
		`{"a":1,"e":{"k":1}}`:  "e.k: is integer",
		`{"a":1,"f":"yester"}`: "no time",
	} {
		v := &validator{t: t, schemas: schemas, seen: map[string]bool{}}
		v.value("x", "", schema.(object), decodeAny(t, value))
		if got := strings.Join(v.errors, "; "); wrong == "" && got != "" || !strings.Contains(got, wrong) {
			t.Errorf("%s: got %q, want %q", value, got, wrong)
		}
	}
}

// What a parameter allows stands in the document and where it is read: the
// bounds are taken, what lies beyond is refused with its name.
func TestParametersAreAsDocumented(t *testing.T) {
	site := fullSite(t)
	for _, route := range routes() {
		path := strings.ReplaceAll(route.path, idPart, "time-wait")
		status := func(query string) (int, string) {
			r := ask(site, loopback, "GET", path+"?"+query)
			return r.StatusCode, body(t, r)
		}
		for _, p := range route.parameters {
			var allowed, refused []string
			switch {
			case p.schema["enum"] != nil:
				allowed, refused = p.schema["enum"].([]string), []string{"", "bogus", strings.ToUpper(p.schema["enum"].([]string)[0])}
			case p.schema["minimum"] != nil:
				least, most := p.schema["minimum"].(int), p.schema["maximum"].(int)
				allowed = []string{strconv.Itoa(least), strconv.Itoa(most)}
				refused = []string{strconv.Itoa(least - 1), strconv.Itoa(most + 1), "-1", "1.5", "1e3", "99999999999999999999", "", "0x10"}
			default:
				refused = []string{""}
			}
			for _, value := range allowed {
				if got, text := status(p.name + "=" + value); got != 200 {
					t.Errorf("%s?%s=%s: %d %s", path, p.name, value, got, text)
				}
			}
			for _, value := range refused {
				if got, text := status(p.name + "=" + value); got != 400 || !strings.Contains(text, p.name) {
					t.Errorf("%s?%s=%s: got %d %s, want 400 that names it", path, p.name, value, got, text)
				}
			}
			sample := slices.Concat(allowed, map[string][]string{"remote": {"10.0.0.0/8"}, "older": {"30s"}}[p.name], []string{"x"})[0]
			want := map[bool]int{false: 400, true: 200}[p.many]
			if got, text := status(p.name + "=" + sample + "&" + p.name + "=" + sample); got != want {
				t.Errorf("%s?%s given twice: %d %s, want %d", path, p.name, got, text, want)
			}
		}
		if !slices.Contains(route.statuses, 400) || route.kind != asJSON {
			continue
		}
		if got, text := status("bogus=1"); got != 400 || !strings.Contains(text, "bogus") && !strings.Contains(text, "no parameters") {
			t.Errorf("%s?bogus=1: %d %s", path, got, text)
		}
	}
}
