package snapshot

import (
	"fmt"
	"reflect"
)

// EncodeValue returns the JSON of a struct, or of a pointer to one, that holds
// parts of the model: by the rules of [Encode], as one line that ends in a
// newline. The struct may have fields of the model's kinds (strings, bools,
// float64, int, unsigned numbers, times, pointers, lists and structs of them),
// but embeds nothing.
func EncodeValue(v any) ([]byte, error) {
	value := reflect.ValueOf(v)
	for value.Kind() == reflect.Pointer {
		value = value.Elem()
	}
	if value.Kind() != reflect.Struct {
		return nil, fmt.Errorf("snapshot: encode: want a struct, not a %T", v)
	}
	e := encoder{layouts: layouts{}, out: make([]byte, 0, 4<<10)}
	if err := e.value(value, ""); err != nil {
		return nil, fmt.Errorf("snapshot: encode: %w", err)
	}
	return append(e.out, '\n'), nil
}
