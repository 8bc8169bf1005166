package snapshot

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// ErrTooLarge means that a report has more than [MaxEncoded] bytes.
var ErrTooLarge = errors.New("the report is larger than 16 MiB")

// Encode writes r as one line of JSON, in one Write.
//
// The same report gives the same bytes. Lists that are nil stand as [], a
// number that is none (NaN, infinite) as null, and characters that could
// deceive a terminal as \uXXXX. A report that [Decode] would refuse for its
// bounds is an error, and then nothing is written.
func Encode(w io.Writer, r *Report) error {
	return encode(w, r, false)
}

// EncodeIndent is Encode for people: a key a line, lists of numbers on one
// line. [Decode] and [Reader] read this form too.
func EncodeIndent(w io.Writer, r *Report) error {
	return encode(w, r, true)
}

func encode(w io.Writer, r *Report, indent bool) error {
	size := 16 << 10 // what is likely to do, since growing costs as much as writing
	for _, n := range r.Namespaces {
		if n != nil {
			size += 4<<10 + 1200*min(len(n.Flows), MaxFlows) + 256*min(len(n.Sockets), MaxSampledSockets)
		}
	}
	e := encoder{layouts: layouts{}, indent: indent, out: make([]byte, 0, min(size, MaxEncoded))}
	if err := e.value(reflect.ValueOf(r).Elem(), ""); err != nil {
		return fmt.Errorf("snapshot: encode: %w", err)
	}
	e.out = append(e.out, '\n')
	if len(e.out) > MaxEncoded {
		return fmt.Errorf("snapshot: encode: %w", ErrTooLarge)
	}
	_, err := w.Write(e.out)
	return err
}

// An encoder writes the model as JSON. It is not encoding/json, because that
// writes null for a nil list, fails on NaN, and passes bidi characters.
type encoder struct {
	out     []byte
	layouts layouts
	indent  bool
	// unbounded lists may be longer than a report's: their maker bounds them.
	unbounded bool
	depth     int
	rows      int
}

// value appends v, which stands under the given key.
func (e *encoder) value(v reflect.Value, key string) error {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			e.out = append(e.out, "null"...)
			return nil
		}
		return e.value(v.Elem(), key)
	case reflect.Struct:
		return e.object(v, key)
	case reflect.Slice, reflect.Array:
		return e.list(v, key)
	case reflect.Map:
		return e.dictionary(v, key)
	case reflect.String:
		if v.Type() == reflect.TypeFor[Severity]() {
			if err := checkSeverity(Severity(v.String()), key); err != nil {
				return err
			}
		}
		e.out = appendString(e.out, v.String())
	case reflect.Float64:
		e.out = appendFloat(e.out, v.Float())
	case reflect.Bool:
		e.out = strconv.AppendBool(e.out, v.Bool())
	case reflect.Int:
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.out = strconv.AppendUint(e.out, v.Uint(), 10)
	default:
		return at(key, fmt.Errorf("no encoding for a %s", v.Type()))
	}
	return nil
}

// opaque appends a value that writes its own JSON.
func (e *encoder) opaque(v reflect.Value, key string) error {
	switch m := v.Interface().(type) {
	case time.Time:
		t := m.UTC()
		if err := checkTime(t); err != nil {
			return at(key, err)
		}
		e.out = append(e.out, '"')
		e.out = t.AppendFormat(e.out, time.RFC3339Nano)
		e.out = append(e.out, '"')
	case json.Marshaler:
		b, err := m.MarshalJSON()
		if err != nil {
			return at(key, err)
		}
		e.out = append(e.out, b...)
	case encoding.TextMarshaler:
		b, err := m.MarshalText()
		if err != nil {
			return at(key, err)
		}
		quoted, err := json.Marshal(string(b)) // a list of ports may be long
		if err != nil {
			return at(key, err)
		}
		e.out = append(e.out, quoted...)
	}
	return nil
}

func (e *encoder) object(v reflect.Value, key string) error {
	shape := e.layouts.of(v.Type())
	if shape.opaque {
		return e.opaque(v, key)
	}
	first := true
	e.open('{')
	for i := range shape.fields {
		f := &shape.fields[i]
		fv := v.Field(f.index)
		if f.omitEmpty && isEmpty(fv) || f.omitZero && fv.IsZero() {
			continue
		}
		e.next(&first)
		e.key(f.prefix)
		if err := e.value(fv, f.name); err != nil {
			return at(key, err)
		}
	}
	e.close('}', first)
	return nil
}

func (e *encoder) list(v reflect.Value, key string) error {
	n := v.Len()
	if limit := MaxElements(key); n > limit && !e.unbounded {
		return at(key, fmt.Errorf("%d elements: at most %d are allowed", n, limit))
	}
	if numbers, ok := reflect.TypeAssert[[]uint32](v); ok {
		e.numbers(numbers)
		return nil
	}
	inline := n == 0 || v.Index(0).Kind() != reflect.Struct && v.Index(0).Kind() != reflect.Pointer && v.Index(0).Kind() != reflect.String
	if inline {
		e.out = append(e.out, '[')
	} else {
		e.open('[')
	}
	first := true
	for i := range n {
		element := v.Index(i)
		switch {
		case inline && !first:
			e.out = append(e.out, ',')
		case !inline:
			e.next(&first)
		}
		first = false
		if k := element.Kind(); k == reflect.Struct || k == reflect.Pointer {
			e.rows++
		}
		err := error(nil)
		switch {
		case element.Kind() == reflect.Pointer && element.IsNil():
			err = errNull
		case e.rows > maxRows:
			err = errRows
		default:
			err = e.value(element, "")
		}
		if err != nil {
			return at(fmt.Sprintf("%s[%d]", key, i), err)
		}
	}
	if inline {
		e.out = append(e.out, ']')
	} else {
		e.close(']', first)
	}
	return nil
}

// numbers is list for the timelines, the longest part of a report.
func (e *encoder) numbers(list []uint32) {
	out := append(e.out, '[')
	for i, n := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendUint(out, uint64(n), 10)
	}
	e.out = append(out, ']')
}

// dictionary appends a map, sorted by key. A number that is none is left out.
func (e *encoder) dictionary(v reflect.Value, key string) error {
	if limit := MaxElements(key); v.Len() > limit {
		return at(key, fmt.Errorf("%d keys: at most %d are allowed", v.Len(), limit))
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	first := true
	e.open('{')
	for _, k := range keys {
		mv := v.MapIndex(k)
		if mv.Kind() == reflect.Float64 && !isNumber(mv.Float()) {
			continue
		}
		e.next(&first)
		e.key(append(appendString(nil, k.String()), ':'))
		if err := e.value(mv, k.String()); err != nil {
			return at(key, err)
		}
	}
	e.close('}', first)
	return nil
}

func (e *encoder) open(bracket byte) {
	e.out = append(e.out, bracket)
	e.depth++
}

func (e *encoder) close(bracket byte, empty bool) {
	e.depth--
	if !empty {
		e.newline()
	}
	e.out = append(e.out, bracket)
}

// next begins an element.
func (e *encoder) next(first *bool) {
	if !*first {
		e.out = append(e.out, ',')
	}
	*first = false
	e.newline()
}

func (e *encoder) newline() {
	if !e.indent {
		return
	}
	e.out = append(e.out, '\n')
	for range e.depth {
		e.out = append(e.out, "  "...)
	}
}

func (e *encoder) key(prefix []byte) {
	e.out = append(e.out, prefix...)
	if e.indent {
		e.out = append(e.out, ' ')
	}
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Struct, reflect.Array:
		return false
	}
	return v.IsZero()
}

// isNumber reports whether f can be a measurement.
func isNumber(f float64) bool {
	return math.Abs(f) <= maxNumber // false for NaN
}

// appendFloat appends the shortest decimal that reads back as f.
func appendFloat(out []byte, f float64) []byte {
	if !isNumber(f) {
		return append(out, "null"...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && abs < 1e-6 {
		format = 'e'
	}
	return strconv.AppendFloat(out, f, format, -1, 64)
}
