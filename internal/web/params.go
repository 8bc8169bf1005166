package web

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/internal/draw"
)

// A parameter of a query. What it allows stands twice, here for the document
// and where it is read; a test holds one to the other.
type parameter struct {
	name   string
	about  string
	many   bool // may be given several times; the values are joined by commas
	schema map[string]any
}

func text() map[string]any { return map[string]any{"type": "string", "maxLength": maxURL} }

func number(least, most int) map[string]any {
	return map[string]any{"type": "integer", "minimum": least, "maximum": most}
}

func oneOf(values ...string) map[string]any {
	return map[string]any{"type": "string", "enum": values}
}

// eachParameter hands the parameters of a query to set, sorted by name: the
// same query, the same complaint. What set returns is what is wanted instead.
// An error names the parameter that is wrong and what is allowed.
func eachParameter(raw string, allowed []parameter, set func(name, value string) (want string)) error {
	if raw == "" {
		return nil
	}
	if len(allowed) == 0 {
		return fmt.Errorf("no parameters are taken here")
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return fmt.Errorf("the query is malformed: %w", err)
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		i := slices.IndexFunc(allowed, func(p parameter) bool { return p.name == name })
		if i < 0 {
			return fmt.Errorf("unknown parameter %s: allowed are %s", quote(name), namesOf(allowed))
		}
		all := values[name]
		if len(all) > 1 && !allowed[i].many {
			return fmt.Errorf("%s is given %d times: give it once", name, len(all))
		}
		value := strings.Join(all, ",")
		if want := set(name, value); want != "" {
			return fmt.Errorf("%s=%s: %s", name, quote(value), want)
		}
	}
	return nil
}

func namesOf(parameters []parameter) string {
	names := make([]string, len(parameters))
	for i, p := range parameters {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}

func portOf(value string) (port uint16, want string) {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n == 0 {
		return 0, "want a port from 1 to 65535"
	}
	return uint16(n), ""
}

func numberOf(value string, least, most int) (n int, want string) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Sprintf("want a number from %d to %d", least, most)
	}
	return n, ""
}

func prefixOf(value string) (p netip.Prefix, want string) {
	p, err := netip.ParsePrefix(value)
	if err != nil {
		a, err := netip.ParseAddr(value)
		if err != nil || a.Zone() != "" {
			return p, "want an address or a prefix, such as 10.0.0.9 or 10.0.0.0/8"
		}
		p = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
	}
	return p.Masked(), ""
}

func choiceOf(value string, choices []string) (choice, want string) {
	if !slices.Contains(choices, value) {
		return "", "want " + strings.Join(choices, ", ")
	}
	return value, ""
}

// quote shows a client's text, shortened and without control characters.
func quote(s string) string {
	text, cut := draw.EscapeShort(s, 64)
	if cut {
		return `"` + text + `"…`
	}
	return `"` + text + `"`
}
