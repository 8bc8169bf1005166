package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

// A bracket is one that is open during the count.
type bracket struct {
	object bool
	known  reflect.Type // struct, map or slice that it is read into; nil: skipped
	name   string       // its key
	count  int          // elements so far
}

// A counter walks JSON text beside the types it will be read into. It is no
// parser: on text that isn't JSON it counts something, and encoding/json finds
// the error.
type counter struct {
	layouts layouts
	open    []bracket
	rows    int
	key     string       // of the value that comes next in an object
	known   reflect.Type // of that value; nil: not ours
}

// countRows refuses data with more elements in a list or map of the model than
// [MaxElements] allows, without allocating them. They will be read into a root.
func countRows(data []byte, root reflect.Type, l layouts) error {
	c := counter{layouts: l, known: root}
	for i := 0; i < len(data); i++ {
		var err error
		switch data[i] {
		case '"':
			end := stringEnd(data, i+1)
			c.text(data, i, end)
			i = end - 1
		case '{', '[':
			err = c.begin(data[i] == '{')
		case '}', ']':
			if len(c.open) > 0 {
				c.open = c.open[:len(c.open)-1]
			}
		case ',':
			err = c.separate()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stringEnd returns the index after the quote that ends the string whose
// content begins at i.
func stringEnd(data []byte, i int) int {
	for ; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(data)
}

// text takes the string data[from:to] for a key if it stands where one may.
func (c *counter) text(data []byte, from, to int) {
	if len(c.open) == 0 {
		return
	}
	top := &c.open[len(c.open)-1]
	if !top.object || top.known == nil {
		return
	}
	for ; to < len(data); to++ {
		switch data[to] {
		case ' ', '\t', '\r', '\n':
			continue
		case ':':
		default:
			return // a value
		}
		break
	}
	if to == len(data) {
		return
	}
	c.key, c.known = "", nil
	end := stringEnd(data, from+1)
	if end-from > 256 || end-from < 2 || top.known.Kind() != reflect.Struct {
		return // longer than any key of ours, however it is escaped; or a map's
	}
	key := data[from+1 : end-1]
	if bytes.IndexByte(key, '\\') >= 0 {
		var plain string
		if json.Unmarshal(data[from:end], &plain) != nil {
			return
		}
		key = []byte(plain)
	}
	c.key, c.known = c.layouts.find(top.known, key)
}

// begin opens a bracket.
func (c *counter) begin(object bool) error {
	if len(c.open) >= maxDepth {
		return fmt.Errorf("more than %d brackets deep", maxDepth)
	}
	next := bracket{object: object, name: c.key}
	known := c.known
	if n := len(c.open); n > 0 && !c.open[n-1].object { // an element
		known = nil
		if list := c.open[n-1].known; list != nil {
			known, next.name = list.Elem(), c.open[n-1].name
		}
	}
	for known != nil && known.Kind() == reflect.Pointer {
		known = known.Elem()
	}
	if known != nil {
		kind := known.Kind()
		isStruct := kind == reflect.Struct && !c.layouts.of(known).opaque
		if object && (isStruct || kind == reflect.Map) || !object && kind == reflect.Slice {
			next.known = known
		}
	}
	if object && next.known != nil {
		if c.rows++; c.rows > maxRows {
			return errRows
		}
	}
	c.open = append(c.open, next)
	c.key, c.known = "", nil
	return nil
}

// separate counts a comma.
func (c *counter) separate() error {
	if len(c.open) == 0 {
		return errors.New("a comma outside of all brackets")
	}
	c.key, c.known = "", nil
	top := &c.open[len(c.open)-1]
	if top.known == nil || top.known.Kind() == reflect.Struct {
		return nil
	}
	top.count++
	if limit := MaxElements(top.name); top.count >= limit {
		return at(top.name, fmt.Errorf("more than %d elements", limit))
	}
	return nil
}
