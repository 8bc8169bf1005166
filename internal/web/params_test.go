package web

import (
	"strings"
	"testing"
)

func TestEachParameter(t *testing.T) {
	allowed := []parameter{{name: "a"}, {name: "b", many: true}}
	for _, tt := range []struct{ raw, want, err string }{
		{"", "", ""},
		{"b=2&a=1", "a=1;b=2;", ""}, // by name
		{"b=1&b=2,3", "b=1,2,3;", ""},
		{"a=", "a=;", ""},
		{"a=x+y%26z", "a=x y&z;", ""},
		{"a=1&a=2", "", "a is given 2 times: give it once"},
		{"c=1", "", `unknown parameter "c": allowed are a, b`},
		{"A=1", "", `unknown parameter "A"`},
		{"=1", "", `unknown parameter ""`},
		{"a=bad", "a=bad;", `a="bad": want good`},
		{"a=%zz", "", "the query is malformed"},
		{"a=1;b=2", "", "the query is malformed"},
		{strings.Repeat("x", 100) + "=1", "", strings.Repeat("x", 64) + `"…`},
		{"%e2%80%ae=1", "", `\u202e`},
	} {
		got := ""
		err := eachParameter(tt.raw, allowed, func(name, value string) string {
			got += name + "=" + value + ";"
			if value == "bad" {
				return "want good"
			}
			return ""
		})
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %q and %v, want %q and %q", tt.raw, got, err, tt.want, tt.err)
		}
	}
	if err := eachParameter("a=1", nil, nil); err == nil || err.Error() != "no parameters are taken here" {
		t.Errorf("got %v", err)
	}
}

func TestValuesOfParameters(t *testing.T) {
	for value, want := range map[string]string{
		"10.0.0.9": "10.0.0.9/32", "10.1.2.3/8": "10.0.0.0/8", "::ffff:10.0.0.9": "10.0.0.9/32", "fe80::1": "fe80::1/128", "2001:db8::5/32": "2001:db8::/32",
		"": "", "10.0.0": "", "10.0.0.9/33": "", "fe80::1%eth0": "", "example.com": "", " 10.0.0.9": "",
	} {
		p, wrong := prefixOf(value)
		if (wrong == "") != (want != "") || want != "" && p.String() != want {
			t.Errorf("prefixOf(%q): %v, %q", value, p, wrong)
		}
	}
	for value, want := range map[string]uint16{"1": 1, "65535": 65535, "0": 0, "65536": 0, "-1": 0, "+80": 0, "80 ": 0, "0x50": 0, "": 0} {
		if p, wrong := portOf(value); p != want || (wrong == "") != (want > 0) {
			t.Errorf("portOf(%q): %d, %q", value, p, wrong)
		}
	}
	for value, want := range map[string]int{"2": 2, "9": 9, "1": 0, "10": 0, "2.0": 0, "": 0} {
		if n, wrong := numberOf(value, 2, 9); (wrong == "") != (want > 0) || wrong == "" && n != want {
			t.Errorf("numberOf(%q): %d, %q", value, n, wrong)
		}
	}
}
