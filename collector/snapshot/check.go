package snapshot

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// An InvalidError is a report of ours, or a list of sockets, that is damaged
// or out of bounds.
type InvalidError struct {
	Path string // where, as in "namespaces[0].flows[3].severity"; "" if not known
	Err  error

	list bool // it is of a list of sockets
}

// Error is one line, safe to print.
func (e *InvalidError) Error() string {
	reason := oneLine(e.Err.Error())
	what := "the report"
	if e.list {
		what = "the list"
	}
	if e.Path == "" {
		return what + " is damaged: " + reason
	}
	return what + " is damaged: " + oneLine(e.Path) + ": " + reason
}

// Unwrap returns the reason.
func (e *InvalidError) Unwrap() error { return e.Err }

var (
	errNull = errors.New("null, where an object is required")
	errRows = fmt.Errorf("more than %d rows in all", maxRows)
)

// at puts a key before the path of an error on its way up.
func at(key string, err error) error {
	var e *InvalidError
	if !errors.As(err, &e) {
		return &InvalidError{Path: key, Err: err}
	}
	switch {
	case key == "":
	case e.Path == "":
		e.Path = key
	case strings.HasPrefix(e.Path, "["):
		e.Path = key + e.Path
	default:
		e.Path = key + "." + e.Path
	}
	return e
}

// checkSeverity holds a severity to those known. A report that nobody has
// judged has no verdict.
func checkSeverity(s Severity, key string) error {
	switch s {
	case Info, Warning, Critical:
		return nil
	case Healthy, "":
		if key == "verdict" {
			return nil
		}
	}
	return at(key, fmt.Errorf("unknown severity %s", quote(string(s))))
}

// checkTime refuses what RFC 3339 can't write. The zero time is allowed: it is
// what a missing key reads as.
func checkTime(t time.Time) error {
	if y := t.Year(); y < 1 || y > 9999 {
		return fmt.Errorf("the year %d is out of range", y)
	}
	return nil
}

// A checker walks a decoded report: it refuses what no pass can have found,
// and gives each value the one form that encoding and decoding keep.
type checker struct {
	layouts layouts
}

func (c *checker) value(v reflect.Value, key string) error {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return c.value(v.Elem(), key)
	case reflect.Struct:
		return c.object(v, key)
	case reflect.Slice, reflect.Array:
		return c.list(v, key)
	case reflect.Map:
		return c.dictionary(v, key)
	case reflect.String:
		return c.text(v, key)
	case reflect.Float64:
		if !isNumber(v.Float()) {
			return at(key, fmt.Errorf("%g is no measurement", v.Float()))
		}
	}
	return nil
}

func (c *checker) opaque(v reflect.Value, key string) error {
	if t, ok := reflect.TypeAssert[time.Time](v); ok {
		t = t.UTC()
		v.Set(reflect.ValueOf(t))
		if err := checkTime(t); err != nil {
			return at(key, err)
		}
	}
	return nil
}

func (c *checker) object(v reflect.Value, key string) error {
	shape := c.layouts.of(v.Type())
	if shape.opaque {
		return c.opaque(v, key)
	}
	for i := range shape.fields {
		f := &shape.fields[i]
		fv := v.Field(f.index)
		if err := checkCount(v.Type(), fv); err != nil {
			return at(key, at(f.name, err))
		}
		if err := c.value(fv, f.name); err != nil {
			return at(key, err)
		}
		switch kind := fv.Kind(); {
		case fv.Type() == reflect.TypeFor[Side]() && fv.Len() == 0 && !f.omitEmpty:
			fv.SetString(string(Unknown))
		case kind != reflect.Slice && kind != reflect.Map || fv.Len() > 0:
		case f.omitEmpty:
			fv.SetZero()
		case kind == reflect.Slice:
			fv.Set(reflect.MakeSlice(fv.Type(), 0, 0))
		default:
			fv.Set(reflect.MakeMap(fv.Type()))
		}
	}
	return nil
}

// checkCount bounds the plain integers of the model's own structs. Settings of
// the kernel are as the kernel has them.
func checkCount(parent reflect.Type, v reflect.Value) error {
	if parent.PkgPath() != reflect.TypeFor[Report]().PkgPath() {
		return nil
	}
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.Int && v.Int() < 0:
		return fmt.Errorf("%d is less than nothing", v.Int())
	case v.Kind() == reflect.Int && v.Int() > 1<<53:
		return fmt.Errorf("%d is no count", v.Int())
	case parent == reflect.TypeFor[States]() && v.Uint() > maxSockets:
		return fmt.Errorf("%d sockets are more than a kernel holds", v.Uint())
	}
	return nil
}

func (c *checker) list(v reflect.Value, key string) error {
	if v.Type() == reflect.TypeFor[[]uint32]() {
		return nil // a timeline, most of a report: any number is one
	}
	for i := range v.Len() {
		element, err := v.Index(i), error(nil)
		if element.Kind() == reflect.Pointer && element.IsNil() {
			err = errNull
		} else {
			err = c.value(element, "")
		}
		if err != nil {
			return at(fmt.Sprintf("%s[%d]", key, i), err)
		}
	}
	return nil
}

func (c *checker) dictionary(v reflect.Value, key string) error {
	for _, k := range v.MapKeys() {
		if len(k.String()) > MaxString {
			return at(key, fmt.Errorf("a key of %d bytes", len(k.String())))
		}
		if err := c.value(v.MapIndex(k), k.String()); err != nil {
			return at(key, err)
		}
	}
	return nil
}

func (c *checker) text(v reflect.Value, key string) error {
	s := v.String()
	if len(s) > MaxString {
		return at(key, fmt.Errorf("a string of %d bytes: at most %d are allowed", len(s), MaxString))
	}
	switch v.Type() {
	case reflect.TypeFor[Severity]():
		return checkSeverity(Severity(s), key)
	case reflect.TypeFor[Side]():
		// A side that this version has never heard of is not known.
		if side := Side(s); side != Client && side != Server && side != "" {
			v.SetString(string(Unknown))
		}
	}
	return nil
}
