package web

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/sysctl"
)

// answerTypes are the types that routes name.
func answerTypes() map[string]reflect.Type {
	return map[string]reflect.Type{
		"Report": reflect.TypeFor[snapshot.Report](), "Flows": reflect.TypeFor[Flows](), "OneFlow": reflect.TypeFor[OneFlow](),
		"Findings": reflect.TypeFor[Findings](), "SocketList": reflect.TypeFor[snapshot.SocketList](), "History": reflect.TypeFor[History](),
		"Explained": reflect.TypeFor[Explained](),
	}
}

// schemas are JSON schemas made of Go types, with their comments.
type schemas struct {
	t        *testing.T
	all      object
	types    map[string]reflect.Type
	comments map[string]string // by type, and type.field
	keys     map[string]string // of JSON, by the field's name
}

func newSchemas(t *testing.T) *schemas {
	s := &schemas{t: t, all: object{}, types: map[string]reflect.Type{}, comments: map[string]string{}, keys: map[string]string{}}
	for _, v := range []any{Flows{}, snapshot.Report{}, sysctl.Limits{}, counters.Sockstat{}, advice.Text{}} {
		pkg := reflect.TypeOf(v).PkgPath()
		s.readComments(path.Base(pkg), filepath.Join("..", "..", strings.TrimPrefix(pkg, "github.com/twwatch/twwatch/")))
	}
	return s
}

// readComments takes what the sources in a directory say of types and fields.
func (s *schemas) readComments(pkg, dir string) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || names == nil {
		s.t.Fatalf("no sources in %s: %v", dir, err)
	}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, d := range file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				continue
			}
			for _, spec := range decl.Specs {
				s.readType(pkg, decl, spec.(*ast.TypeSpec))
			}
		}
	}
}

func (s *schemas) readType(pkg string, decl *ast.GenDecl, spec *ast.TypeSpec) {
	name := pkg + "." + spec.Name.Name
	s.comments[name] = sentence(decl.Doc.Text())
	fields, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range fields.Fields.List {
		text := sentence(f.Doc.Text() + " " + f.Comment.Text())
		for _, n := range f.Names {
			s.comments[name+"."+n.Name] = text
			if f.Tag == nil {
				continue
			}
			if key, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ","); key != "" {
				s.keys[n.Name] = key
			}
		}
	}
}

// sentence writes a comment for readers of JSON.
func sentence(comment string) string {
	text := strings.Join(strings.Fields(comment), " ")
	text = regexp.MustCompile(`\[(\w+)\]`).ReplaceAllString(text, "$1")
	return regexp.MustCompile(`\bnil\b`).ReplaceAllString(text, "null")
}

func (s *schemas) named(name string) object {
	t, ok := answerTypes()[name]
	if !ok {
		s.t.Fatalf("a route names the type %s, which this test doesn't know", name)
	}
	return s.of(t)
}

func (s *schemas) add(name string, schema object) { s.all[name] = schema }

// of is the schema of a type as encoding/json and [snapshot.Encode] write it.
func (s *schemas) of(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[sysctl.PortRange]():
		return object{"type": "array", "items": object{"type": "integer", "minimum": 0, "maximum": 65535}, "minItems": 2, "maxItems": 2}
	case reflect.TypeFor[sysctl.PortSet]():
		return object{"type": "string"}
	case reflect.TypeFor[snapshot.Severity]():
		return object{"type": "string", "enum": []snapshot.Severity{snapshot.Healthy, snapshot.Info, snapshot.Warning, snapshot.Critical}}
	case reflect.TypeFor[snapshot.Side]():
		return object{"type": "string", "enum": []snapshot.Side{snapshot.Client, snapshot.Server, snapshot.Unknown}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Int:
		return object{"type": "integer"}
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Array:
		return object{"type": "array", "items": s.of(t.Elem()), "minItems": t.Len(), "maxItems": t.Len()}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.structure(t)
	}
	s.t.Fatalf("no schema for %v", t)
	return nil
}

// structure is a reference to the schema of a struct, which it adds.
func (s *schemas) structure(t reflect.Type) object {
	name := strings.TrimSuffix(strings.ToUpper(t.Name()[:1])+t.Name()[1:], "Data")
	ref := object{"$ref": "#/components/schemas/" + name}
	if known, ok := s.types[name]; ok {
		if known != t {
			s.t.Fatalf("%v and %v are both called %s", known, t, name)
		}
		return ref
	}
	s.types[name] = t
	comments := path.Base(t.PkgPath()) + "." + t.Name()
	properties, required := object{}, []string{}
	for f := range t.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "-" {
			continue
		}
		schema := s.property(name, key, f.Type)
		if options == "" {
			required = append(required, key)
			if f.Type.Kind() == reflect.Pointer {
				schema = nullable(schema)
			}
		}
		if text := s.comments[comments+"."+f.Name]; text != "" {
			schema["description"] = s.withKeys(t, text)
		}
		properties[key] = schema
	}
	s.add(name, object{"type": "object", "description": s.withKeys(t, s.comments[comments]), "properties": properties, "required": required})
	return ref
}

// withKeys writes the fields in a struct's comment as JSON has them, and those of
// others where the word can be nothing else.
func (s *schemas) withKeys(t reflect.Type, comment string) string {
	return regexp.MustCompile(`\b[A-Z]\w+\b`).ReplaceAllStringFunc(comment, func(word string) string {
		_, own := t.FieldByName(word)
		if key := s.keys[word]; key != "" && (own || strings.ContainsFunc(word[1:], unicode.IsUpper)) {
			return key
		}
		return word
	})
}

// property is a field's schema, with the bound that its list has.
func (s *schemas) property(owner, key string, t reflect.Type) object {
	schema := s.of(t)
	most := snapshot.MaxElements(key)
	switch owner + "." + key {
	case "SocketList.sockets": // which the query bounds
		most = MaxSockets
	case "Findings.findings":
		most = MaxFindings
	case "History.moments":
		most = MaxHistory
	}
	switch t.Kind() {
	case reflect.Slice:
		schema["maxItems"] = most
	case reflect.Map:
		schema["maxProperties"] = most
	}
	return schema
}

func nullable(schema object) object {
	if kind, ok := schema["type"]; ok {
		schema["type"] = []any{kind, "null"}
		return schema
	}
	return object{"anyOf": []any{schema, object{"type": "null"}}}
}
