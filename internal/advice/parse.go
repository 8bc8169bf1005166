package advice

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A DataError is one thing wrong in a file of knowledge.
type DataError struct {
	File string
	Line int    // from 1; 0 if the whole file is meant
	Key  string // where in the file: "remedies: go-http-pool: do"
	Want string // what is wrong and what is expected
}

func (e *DataError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Key != "" {
		where += ": " + e.Key
	}
	return where + ": " + e.Want
}

// A section is one of the lists that a file may hold.
type section struct {
	name     string
	required []string
	operator bool // may stand in an operator's file
	add      func(*reader, *entries, *yaml.Node)
}

func sections() []section {
	return []section{
		{"services", []string{"id", "title", "do", "references"}, true, addService},
		{"runtimes", []string{"id", "title", "kind", "references"}, false, addRuntime},
		{"remedies", []string{"id", "title", "order", "when", "do", "references"}, true, addRemedy},
		{"topics", []string{"id", "title", "group", "says", "references"}, false, addTopic},
		{"findings", []string{"id", "title", "says", "why"}, false, addFinding},
	}
}

// A reader turns one file into entries and collects what is wrong with it.
type reader struct {
	file      File
	operators bool
	strict    bool   // check what a test has checked already of the embedded files
	entry     string // where it is: "remedies: go-http-pool"
	errs      []error
}

// maxErrors is how many complaints about one file are told.
const maxErrors = 20

func (r *reader) fail(n *yaml.Node, key, format string, args ...any) {
	e := &DataError{File: r.file.Name, Key: r.entry, Want: fmt.Sprintf(format, args...)}
	if key != "" {
		e.Key = strings.TrimPrefix(e.Key+": "+key, ": ")
	}
	if n != nil {
		e.Line = n.Line
	}
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, e)
	}
}

// add reads one file. Checks across entries are against what is there already;
// what names what may come later is left to [Library.check].
func (e *entries) add(f File, operators bool) error {
	r := &reader{file: f, operators: operators, strict: operators || e.strict}
	if len(f.Data) > MaxFile {
		r.fail(nil, "", "the file has %d bytes: at most %d are allowed", len(f.Data), MaxFile)
		return errors.Join(r.errs...)
	}
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(f.Data))
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		message, at := strings.TrimPrefix(err.Error(), "yaml: "), &yaml.Node{Line: 1} // the parser doesn't name the first
		if _, failed := fmt.Sscanf(message, "line %d:", &at.Line); failed == nil {
			_, message, _ = strings.Cut(message, ": ")
		}
		r.fail(at, "", "not YAML: %s", message)
		return errors.Join(r.errs...)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.fail(nil, "", "one YAML document is expected, and nothing after it")
	}
	if len(doc.Content) == 0 {
		return errors.Join(r.errs...)
	}
	if aliased(&doc) {
		r.fail(&doc, "", "anchors and aliases are not allowed: write each entry out")
		return errors.Join(r.errs...)
	}
	r.sections(e, doc.Content[0])
	return errors.Join(r.errs...)
}

// aliased looks for YAML's anchors, by which a small file can grow without end.
func aliased(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || n.Anchor != "" || slices.ContainsFunc(n.Content, aliased)
}

func (r *reader) sections(e *entries, root *yaml.Node) {
	var names []string
	all := sections()
	for _, s := range all {
		if s.operator || !r.operators {
			names = append(names, s.name)
		}
	}
	if root.Kind != yaml.MappingNode {
		r.fail(root, "", "want one or more of the lists %s", strings.Join(names, ", "))
		return
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, list := root.Content[i], root.Content[i+1]
		at := slices.IndexFunc(all, func(s section) bool { return s.name == key.Value })
		if at < 0 || !slices.Contains(names, key.Value) {
			r.fail(key, quote(key.Value), "unknown key: want one of %s", strings.Join(names, ", "))
			continue
		}
		if list.Kind != yaml.SequenceNode {
			r.fail(list, key.Value, "want a list of entries")
			continue
		}
		for number, entry := range list.Content {
			r.entry = fmt.Sprintf("%s: entry %d", key.Value, number+1)
			if id := field(entry, "id"); id != nil && validID(id.Value) {
				r.entry = key.Value + ": " + id.Value
			}
			if r.keys(entry, all[at].required) {
				all[at].add(r, e, entry)
			}
			r.entry = ""
		}
	}
}

// validID tells whether s is small letters, digits and single hyphens.
func validID(s string) bool {
	for part := range strings.SplitSeq(s, "-") {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return false
		}
	}
	return len(s) <= 64
}

// keys checks that an entry is a mapping with every required key.
func (r *reader) keys(entry *yaml.Node, required []string) bool {
	if entry.Kind != yaml.MappingNode {
		r.fail(entry, "", "want a mapping with the keys %s", strings.Join(required, ", "))
		return false
	}
	complete := true
	for _, key := range required {
		if n := field(entry, key); n == nil || n.Kind == yaml.ScalarNode && strings.TrimSpace(n.Value) == "" || n.Kind != yaml.ScalarNode && len(n.Content) == 0 {
			r.fail(entry, key, "missing: %s", expected(key))
			complete = false
		}
	}
	return complete
}

// expected says what a required key is for.
func expected(key string) string {
	switch key {
	case "id":
		return "give a name of its own in small letters, digits and hyphens"
	case "do":
		return "say what to do"
	case "when":
		return "say by patterns, side, services or runtimes what it is for"
	case "order":
		return "give one of " + strings.Join(orders(), ", ")
	case "references":
		return "give at least one source, as {title: ..., url: https://...}"
	}
	return "give a text"
}

func field(entry *yaml.Node, key string) *yaml.Node {
	if entry.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(entry.Content); i += 2 {
		if entry.Content[i].Value == key {
			return entry.Content[i+1]
		}
	}
	return nil
}

// decode fills an entry's struct, whose yaml tags are the keys that it may have.
func (r *reader) decode(n *yaml.Node, into any) bool {
	if r.strict {
		before := len(r.errs)
		r.unknownKeys(n, reflect.TypeOf(into).Elem(), "")
		if len(r.errs) > before {
			return false
		}
	}
	err := n.Decode(into)
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
		for _, m := range wrong.Errors {
			var line int
			if _, err := fmt.Sscanf(m, "line %d:", &line); err == nil {
				_, m, _ = strings.Cut(m, ": ")
			}
			r.fail(&yaml.Node{Line: line}, "", "%s", typeProblem(m))
		}
		return false
	}
	if err != nil {
		r.fail(n, "", "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return false
	}
	return true
}

// typeProblem says in an operator's words what the decoder says in Go's.
func typeProblem(m string) string {
	for goType, want := range map[string]string{
		"uint16": "a port from 1 to 65535", "[]uint16": "a list of ports", "string": "a text", "[]string": "a list of texts",
		"bool": "true or false", "[]advice.Reference": "a list of {title, url}", "advice.When": "a mapping of conditions",
		"advice.Reference": "{title, url}", "[]advice.Sysctl": "a list of settings", "advice.Sysctl": "a setting",
	} {
		if given, ok := strings.CutSuffix(m, " into "+goType); ok {
			_, value, _ := strings.Cut(given, " ")
			_, value, _ = strings.Cut(value, " ")
			return fmt.Sprintf("%s: want %s", strings.TrimSpace(value), want)
		}
	}
	return m
}

func (r *reader) unknownKeys(n *yaml.Node, t reflect.Type, path string) {
	switch {
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for _, c := range n.Content {
			r.unknownKeys(c, t.Elem(), path)
		}
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		known := map[string]reflect.Type{}
		var names []string
		for f := range t.Fields() {
			if tag := f.Tag.Get("yaml"); tag != "" {
				known[tag], names = f.Type, append(names, tag)
			}
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			switch sub, ok := known[key]; {
			case !ok:
				r.fail(n.Content[i], path+quote(key), "unknown key: want one of %s", strings.Join(names, ", "))
			case seen[key]:
				r.fail(n.Content[i], path+key, "given twice")
			default:
				r.unknownKeys(n.Content[i+1], sub, path+key+": ")
			}
			seen[key] = true
		}
	}
}

// quote shows a word of a file as it is if it is harmless.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return fmt.Sprintf("%q", s)
}
