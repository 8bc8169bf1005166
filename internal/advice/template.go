package advice

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"

	"go.yaml.in/yaml/v3"

	"github.com/twwatch/twwatch/internal/draw"
)

// texts are a remedy's templates, parsed.
type texts struct {
	onlyIf, do, snippet, effect *template.Template
	caveats                     []*template.Template
	sysctls                     []sysctlTexts
}

type sysctlTexts struct{ value, present *template.Template }

// errAbsent ends a template that needs a number which isn't known.
var errAbsent = errors.New("unknown here")

// functions are those that a template may call, beside comparisons.
func functions() template.FuncMap {
	number := func(v any) (float64, error) {
		switch v := v.(type) {
		case int:
			return float64(v), nil
		case float64:
			return v, nil
		}
		return 0, errAbsent
	}
	show := func(text func(float64) string) func(any) (string, error) {
		return func(v any) (string, error) {
			f, err := number(v)
			if err != nil {
				return "", err
			}
			return text(f), nil
		}
	}
	return template.FuncMap{
		"count":   show(func(f float64) string { return draw.Count(int64(f)) }),
		"rate":    show(draw.Rate),
		"seconds": show(draw.Duration),
		"bytes":   show(func(f float64) string { return bytesText(int(f)) }),
		"times": func(factor int, v any) (int, error) {
			f, err := number(v)
			return int(f) * factor, err
		},
		"known": func(v any) bool { return v != nil },
	}
}

// templates has a remedy's texts parsed: those of an operator at once, and each
// tried with all numbers known, so that a mistake is found when the file is read
// and not when it is needed; the embedded ones, which a test has tried, when the
// remedy is first recommended.
func (r *reader) templates(n *yaml.Node, m *Remedy) {
	m.texts = sync.OnceValue(m.parse)
	if !r.strict {
		return
	}
	sample := sample().fill()
	m.parseEach(func(key, text string) *template.Template {
		t, err := parseTemplate(text, functions())
		if err == nil && t.Tree != nil {
			err = allowed(t.Root)
		}
		if err == nil {
			if _, err = render(t, sample); errors.Is(err, errAbsent) {
				err = errors.New("it gives no text even where every number is known")
			}
		}
		if err != nil {
			at := field(n, key)
			if at == nil {
				at = n
			}
			r.fail(at, key, "bad template: %s", plainError(err))
		}
		return t
	})
}

// parse parses texts that were tried before.
func (m *Remedy) parse() *texts {
	functions := functions()
	return m.parseEach(func(_, text string) *template.Template {
		t, err := parseTemplate(text, functions)
		if err != nil {
			return nil
		}
		return t
	})
}

// parseEach has each text parsed by the function given; an absent one is nil.
func (m *Remedy) parseEach(parse func(key, text string) *template.Template) *texts {
	parsed := func(key, text string) *template.Template {
		if text = strings.TrimSpace(text); text == "" {
			return nil
		}
		return parse(key, text)
	}
	t := &texts{
		onlyIf: parsed("only_if", m.OnlyIf), do: parsed("do", m.Do),
		snippet: parsed("snippet", m.Snippet), effect: parsed("effect", m.Effect),
	}
	for _, c := range m.Caveats {
		t.caveats = append(t.caveats, parsed("caveats", c))
	}
	for _, s := range m.Sysctls {
		t.sysctls = append(t.sysctls, sysctlTexts{parsed("sysctls", s.Value), parsed("sysctls", s.Present)})
	}
	return t
}

// parseTemplate parses one text; [allowed] tells whether it may be used.
func parseTemplate(text string, functions template.FuncMap) (*template.Template, error) {
	t, err := template.New("text").Funcs(functions).Parse(text)
	if err != nil {
		return nil, err
	}
	if len(t.Templates()) > 1 {
		return nil, errors.New("define and block are not allowed")
	}
	return t, nil
}

// allowed walks a template: what is not known to be harmless is refused.
func allowed(n parse.Node) error {
	switch n := n.(type) {
	case nil, *parse.TextNode, *parse.NumberNode, *parse.StringNode, *parse.BoolNode, *parse.CommentNode:
		return nil
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		return all(n.Nodes)
	case *parse.ActionNode:
		return allowed(n.Pipe)
	case *parse.IfNode:
		return errors.Join(allowed(n.Pipe), allowed(n.List), allowed(n.ElseList))
	case *parse.PipeNode:
		if len(n.Decl) > 0 {
			return errors.New("variables are not allowed")
		}
		for _, c := range n.Cmds {
			if err := all(c.Args); err != nil {
				return err
			}
		}
		return nil
	case *parse.FieldNode:
		if _, ok := reflect.TypeFor[data]().FieldByName(n.Ident[0]); !ok || len(n.Ident) > 1 {
			return fmt.Errorf("%s is no number that is known here: want one of %s", n.String(), strings.Join(dataNames(), ", "))
		}
		return nil
	case *parse.IdentifierNode:
		names := []string{"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge"}
		for name := range functions() {
			names = append(names, name)
		}
		if !slices.Contains(names, n.Ident) {
			slices.Sort(names)
			return fmt.Errorf("%s is not allowed: want one of %s", n.Ident, strings.Join(names, ", "))
		}
		return nil
	}
	return fmt.Errorf("%s is not allowed: only fields, functions and if are", n)
}

func all(nodes []parse.Node) error {
	for _, n := range nodes {
		if err := allowed(n); err != nil {
			return err
		}
	}
	return nil
}

func dataNames() []string {
	var names []string
	for f := range reflect.TypeFor[data]().Fields() {
		names = append(names, "."+f.Name)
	}
	return names
}

// render fills a template in. The error is errAbsent where it needs a number
// that isn't known.
func render(t *template.Template, d *data) (string, error) {
	if t == nil {
		return "", nil
	}
	var b strings.Builder
	if err := t.Execute(&b, d); err != nil {
		if errors.Is(err, errAbsent) {
			return "", errAbsent
		}
		return "", err
	}
	s := b.String()
	if strings.Contains(s, "<no value>") || strings.Contains(s, "<nil>") {
		return "", errAbsent
	}
	return strings.TrimSpace(s), nil
}

// plainError takes the template engine's own words off an error.
func plainError(err error) string {
	s := strings.ReplaceAll(err.Error(), "\n", "; ")
	s = strings.TrimPrefix(s, "template: ")
	return strings.TrimPrefix(s, "text:")
}
