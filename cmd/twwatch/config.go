package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/twwatch/twwatch/internal/diagnose"
	"github.com/twwatch/twwatch/internal/draw"
)

// A configuration is what a --config.file holds; empty without one.
type configuration struct {
	path string   // "" without a file
	args []string // the command line, to read the file anew with
	// settings are flags in the order of the file.
	settings   []setting
	thresholds diagnose.Thresholds
	flags      map[string]string // the command's, as they came out
}

// A setting is a flag's value in a file.
type setting struct {
	key    string // the flag's name
	values []string
	line   int
}

// A configError is a fault in a file: one line that names the place.
type configError struct {
	path string
	line int    // 0 if unknown
	key  string // "" if the fault is not a key's
	text string
}

func (e *configError) Error() string {
	place := e.path
	if e.line > 0 {
		place += ":" + strconv.Itoa(e.line)
	}
	if e.key != "" {
		place += ": " + e.key
	}
	return place + ": " + e.text
}

const (
	maxConfig     = 1 << 20 // bytes
	thresholdsKey = "thresholds"
)

// readConfig reads a file and checks every key and value of it, for the
// command of that name foremost.
func readConfig(e env, path, selected string) (configuration, error) {
	f, err := os.Open(path)
	if err != nil {
		return configuration{}, fmt.Errorf("--config.file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return configuration{}, fmt.Errorf("--config.file: %w", err)
	}
	if len(text) > maxConfig {
		return configuration{}, &configError{path: path, text: "larger than 1 MiB: this is no configuration"}
	}
	cfg, err := parseConfig(path, text)
	if err != nil {
		return configuration{}, err
	}
	return cfg, cfg.check(newApp(e), selected)
}

// parseConfig reads keys and values, and knows no flag.
func parseConfig(path string, text []byte) (configuration, error) {
	cfg := configuration{path: path}
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return cfg, nil // empty, or comments only
	case err != nil:
		return cfg, syntaxError(path, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		if err != nil {
			return cfg, syntaxError(path, err)
		}
		return cfg, &configError{path: path, text: "holds more than one document (\"---\"): want one"}
	}
	if len(document.Content) == 0 || document.Content[0].Tag == "!!null" {
		return cfg, nil
	}
	seen := map[string]int{}
	if err := cfg.add(seen, "", document.Content[0]); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// syntaxError takes the line out of the parser's message.
func syntaxError(path string, err error) error {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1 // the parser doesn't name the first
	if m := regexp.MustCompile(`^line ([0-9]+): `).FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	return &configError{path: path, line: line, text: text + ": want YAML such as \"interval: 15s\", one setting a line"}
}

// add walks a mapping; prefix is the key that leads to it.
func (cfg *configuration) add(seen map[string]int, prefix string, node *yaml.Node) error {
	fault := func(n *yaml.Node, key, format string, args ...any) error {
		return &configError{path: cfg.path, line: n.Line, key: key, text: fmt.Sprintf(format, args...)}
	}
	if node.Kind != yaml.MappingNode {
		return fault(node, prefix, "want settings, as in \"interval: 15s\"")
	}
	for pair := range slices.Chunk(node.Content, 2) {
		key, value := pair[0], pair[1]
		if key.Kind != yaml.ScalarNode {
			return fault(key, prefix, "a key must be a name")
		}
		name := strings.Trim(prefix+"."+key.Value, ".")
		if line, twice := seen[name]; twice {
			return fault(key, name, "stands here for the second time: the first is in line %d", line)
		}
		if name == thresholdsKey && value.Tag != "!!null" {
			seen[name] = key.Line
			if err := cfg.addThresholds(value); err != nil {
				return err
			}
			continue
		}
		s := setting{key: name, line: key.Line}
		switch value.Kind {
		case yaml.MappingNode:
			if err := cfg.add(seen, name, value); err != nil {
				return err
			}
			continue
		case yaml.ScalarNode:
			if value.Tag == "!!null" {
				return fault(key, name, "has no value")
			}
			s.values = []string{value.Value}
		case yaml.SequenceNode:
			for _, item := range value.Content {
				if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
					return fault(item, name, "want a list of plain values")
				}
				s.values = append(s.values, item.Value)
			}
			if len(s.values) == 0 {
				return fault(key, name, "has no value")
			}
		default:
			return fault(value, name, "aliases are not supported: write the value")
		}
		seen[name] = key.Line
		cfg.settings = append(cfg.settings, s)
	}
	return nil
}

func (cfg *configuration) addThresholds(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return &configError{path: cfg.path, line: node.Line, key: thresholdsKey, text: "want thresholds by name, one a line, as in \"ports_slow_ratio: 0.5\""}
	}
	seen := map[string]bool{}
	for pair := range slices.Chunk(node.Content, 2) {
		key, value := pair[0], pair[1]
		name := thresholdsKey + "." + key.Value
		fault := func(text string) error {
			return &configError{path: cfg.path, line: key.Line, key: name, text: text}
		}
		if seen[key.Value] {
			return fault("stands here for the second time")
		}
		seen[key.Value] = true
		if allowed := slices.Sorted(maps.Keys(cfg.thresholds.All())); !slices.Contains(allowed, key.Value) {
			return fault(unknownName(key.Value, allowed))
		}
		number, err := strconv.ParseFloat(value.Value, 64)
		switch {
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null":
			return fault("want a number")
		case err != nil:
			return fault(fmt.Sprintf("%q: want a number", value.Value))
		}
		if err := cfg.thresholds.Set(key.Value, number); err != nil {
			return fault(err.Error())
		}
	}
	if err := cfg.thresholds.Check(); err != nil {
		return &configError{path: cfg.path, line: node.Line, key: thresholdsKey, text: err.Error()}
	}
	return nil
}

// check holds every setting to the flags of a.
func (cfg *configuration) check(a *app, selected string) error {
	for _, s := range cfg.settings {
		fault := func(text string) error {
			return &configError{path: cfg.path, line: s.line, key: s.key, text: text}
		}
		flags := a.flags(s.key)
		if len(flags) == 0 || !slices.Contains(a.configurable(), s.key) {
			return fault(unknownName(s.key, append(a.configurable(), thresholdsKey)))
		}
		// What the command doesn't take must at least suit another's flag.
		var problem error
		for _, flag := range flags {
			m := flag.Model()
			problem = nil
			cumulative, ok := m.Value.(interface{ IsCumulative() bool })
			switch {
			case len(s.values) > 1 && !(ok && cumulative.IsCumulative()):
				problem = errors.New("takes one value, not a list")
			case m.IsBoolFlag() && s.values[0] != "true" && s.values[0] != "false":
				problem = fmt.Errorf("%q: want true or false", s.values[0])
			default:
				for _, v := range s.values {
					problem = errors.Join(problem, m.Value.Set(v))
				}
			}
			own := selected != "" && a.byName[selected].CmdClause != nil && a.byName[selected].GetFlag(s.key) == flag
			if own || problem == nil {
				break
			}
		}
		if problem != nil {
			return fault(problem.Error())
		}
	}
	return nil
}

// configurable lists the flags that may stand in a file, sorted.
func (a *app) configurable() []string {
	names := map[string]bool{}
	for _, c := range a.Model().Commands {
		for _, f := range c.Flags {
			if !f.Hidden {
				names[f.Name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// unknownName tells what is allowed, and what may have been meant.
func unknownName(name string, allowed []string) string {
	text := "no such setting"
	if i := slices.IndexFunc(allowed, func(a string) bool { return draw.Distance(name, a) <= 2 }); i >= 0 {
		text += "; did you mean " + allowed[i] + "?"
	}
	return text + "; allowed are " + strings.Join(allowed, ", ")
}
