package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
)

// schemas is what every version's schema begins with.
const schemas = "twwatch.report/"

// A NewerError is a report whose encoding is from after this version.
type NewerError struct {
	Schema  string
	Version string // of the twwatch that wrote it; "" if it didn't say
}

// Error is one line, safe to print.
func (e *NewerError) Error() string {
	version := "unknown version"
	if e.Version != "" {
		version = "version " + quote(e.Version)
	}
	return "written by a newer twwatch (" + version + ", schema " + quote(e.Schema) + "): update twwatch to read it"
}

// A NotReportError means that the data are no report of twwatch at all.
type NotReportError struct {
	Start string // the first bytes, as they were; nothing if there were none
}

// Error is one line, safe to print.
func (e *NotReportError) Error() string {
	if e.Start == "" {
		return "not a twwatch report: it is empty"
	}
	return "not a twwatch report: it starts with " + quote(e.Start)
}

// Decode reads one report, compact or indented. It reads what this and every
// earlier version wrote: unknown keys are ignored, missing ones are zero, nil
// or empty lists. data is not kept.
//
// The error is a [*NewerError], a [*NotReportError], or an [*InvalidError] for
// a report that is damaged or beyond the bounds of the model; each is one line
// that may be printed. Whatever the data are, a report that is returned holds
// the model's bounds, and reading it takes at most some 10 times its size and
// 100 MiB.
func Decode(data []byte) (*Report, error) {
	if len(data) > MaxEncoded {
		return nil, &InvalidError{Err: ErrTooLarge}
	}
	r, err := decode(data)
	if err != nil || r.Schema != Schema {
		return nil, classify(data, err)
	}
	return r, nil
}

func decode(data []byte) (*Report, error) {
	l := layouts{}
	// encoding/json allocates whatever it is told to: {} is 3 bytes of a list
	// and 500 of a Flow. So lists are counted before.
	if err := countRows(data, reflect.TypeFor[Report](), l); err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	if r.Schema != Schema {
		return r, nil
	}
	c := checker{layouts: l}
	if err := c.value(reflect.ValueOf(r).Elem(), ""); err != nil {
		return nil, err
	}
	return r, nil
}

// classify says why data are no report that this version reads; err is what
// decoding met, nil if only the schema is wrong.
func classify(data []byte, err error) error {
	var head struct {
		Schema  any `json:"schema"`
		Version any `json:"version"`
	}
	headErr := json.Unmarshal(data, &head)
	schema, _ := head.Schema.(string)
	version, _ := head.Version.(string)
	switch {
	case strings.HasPrefix(schema, schemas) && schema != Schema:
		return &NewerError{Schema: schema, Version: version}
	case err != nil && (schema == Schema || headErr != nil && looksOurs(data)):
		if invalid, ok := errors.AsType[*InvalidError](err); ok {
			return invalid
		}
		return &InvalidError{Err: err}
	}
	return &NotReportError{Start: start(data)}
}

// looksOurs reports whether broken JSON begins like a report.
func looksOurs(data []byte) bool {
	return bytes.Contains(data[:min(len(data), 256)], []byte(`"`+schemas))
}

// start returns the first bytes for a message.
func start(data []byte) string {
	return string(data[:min(len(data), 65)])
}
