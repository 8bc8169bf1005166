package snapshot

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A field is one key of a struct of the model.
type field struct {
	index     int
	value     reflect.Type
	name      string
	prefix    []byte // the name as JSON, and the colon
	omitEmpty bool
	omitZero  bool
}

// A layout is how one struct is written.
type layout struct {
	opaque bool // it writes and reads its own JSON
	fields []field
}

// layouts remembers the layout of each struct for the length of one call.
type layouts map[reflect.Type]layout

// of returns the layout of the struct type t: its keys in their order, by the
// rules of encoding/json for the tags that the model uses. Embedded structs
// are not among them.
func (l layouts) of(t reflect.Type) layout {
	if known, ok := l[t]; ok {
		return known
	}
	out := layout{opaque: opaque(t)}
	if !out.opaque {
		for i := range t.NumField() {
			if f, ok := fieldOf(t.Field(i), i); ok {
				out.fields = append(out.fields, f)
			}
		}
	}
	l[t] = out
	return out
}

func fieldOf(f reflect.StructField, index int) (field, bool) {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	if !f.IsExported() || name == "-" {
		return field{}, false
	}
	if name == "" {
		name = f.Name
	}
	out := field{index: index, value: f.Type, name: name, prefix: append(appendString(nil, name), ':')}
	for option := range strings.SplitSeq(options, ",") {
		out.omitEmpty = out.omitEmpty || option == "omitempty"
		out.omitZero = out.omitZero || option == "omitzero"
	}
	return out, true
}

// find returns the name and type of the field that encoding/json would store
// the key in: the one of that name, else one that differs only in case. A nil
// type is no such field.
func (l layouts) find(t reflect.Type, key []byte) (name string, value reflect.Type) {
	fields := l.of(t).fields
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == string(key) })
	if i < 0 {
		i = slices.IndexFunc(fields, func(f field) bool { return strings.EqualFold(f.name, string(key)) })
	}
	if i < 0 {
		return "", nil
	}
	return fields[i].name, fields[i].value
}

// opaque reports whether values of type t write and read their own JSON.
func opaque(t reflect.Type) bool {
	return t == reflect.TypeFor[time.Time]() ||
		t.Implements(reflect.TypeFor[json.Marshaler]()) ||
		t.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

// Bounds of an encoded report, on top of [MaxFlows] and its kin.
const (
	// MaxEncoded is the most bytes that one report may have, unpacked.
	MaxEncoded = 16 << 20
	// MaxNamespaces is the most namespaces that a report may have.
	MaxNamespaces = 1024
	// MaxString is the most bytes of any one string. A longer one is cut short
	// when it is written, and refused when it is read.
	MaxString = 4096

	maxFindings = 4096
	maxRows     = 1 << 17 // objects in all lists together
	maxDepth    = 100     // of brackets
	maxSockets  = 1 << 30 // in one state: no kernel holds so many
	maxNumber   = 1e20    // a larger one is no measurement
)

// MaxElements returns how many elements the list or map under this key may have
// in an encoded report, or in a value of [EncodeValue].
func MaxElements(key string) int {
	switch key {
	case "flows":
		return MaxFlows
	case "close_waits":
		return MaxCloseWaits
	case "listeners":
		return MaxListeners
	case "sockets":
		return MaxSampledSockets
	case "namespaces":
		return MaxNamespaces
	case "owners":
		return MaxOwners
	case "half_open":
		return MaxHalfOpen
	case "processes":
		return MaxProcesses
	case "pids":
		return MaxPIDs
	case "findings", "incomplete":
		return maxFindings
	}
	return 1024
}
