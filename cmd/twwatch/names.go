package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/twwatch/twwatch/collector"
)

// Bounds of a file of names.
const (
	maxNamesFile = 1 << 20
	maxNames     = 10_000
	maxName      = 128
)

// A namesValue is the names in a file.
type namesValue struct {
	path  string
	names *[]collector.Name
}

func (v *namesValue) Set(path string) (err error) {
	v.path = path
	*v.names, err = readNames(path)
	return err
}

func (v *namesValue) String() string { return v.path }

// readNames reads what the operator calls addresses and networks: a YAML mapping
// such as "10.0.0.9: redis-main" and "10.1.0.0/16: batch".
func readNames(path string) ([]collector.Name, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxNamesFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxNamesFile {
		return nil, fmt.Errorf("%s: larger than 1 MiB", path)
	}
	return parseNames(path, data)
}

func parseNames(path string, data []byte) ([]collector.Name, error) {
	var document yaml.Node
	switch err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, syntaxError(path, err)
	}
	root := document.Content[0]
	fault := func(n *yaml.Node, format string, args ...any) error {
		return &configError{path: path, line: n.Line, text: fmt.Sprintf(format, args...)}
	}
	if root.Kind != yaml.MappingNode {
		return nil, fault(root, "want names of addresses, as in \"10.0.0.9: redis-main\"")
	}
	var names []collector.Name
	seen := map[netip.Prefix]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		var prefix netip.Prefix
		if err := (prefixValue{&prefix}).Set(key.Value); err != nil {
			return nil, fault(key, "%v", err)
		}
		name := strings.TrimSpace(value.Value)
		if value.Kind != yaml.ScalarNode || name == "" || len(name) > maxName {
			return nil, fault(value, "%s: want a name of 1 to %d bytes", key.Value, maxName)
		}
		prefix = prefix.Masked()
		if line, twice := seen[prefix]; twice {
			return nil, fault(key, "%s stands here for the second time: the first is in line %d", key.Value, line)
		}
		seen[prefix] = key.Line
		if names = append(names, collector.Name{Prefix: prefix, Name: name}); len(names) > maxNames {
			return nil, fault(key, "more than %d names", maxNames)
		}
	}
	return names, nil
}
