package owner

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestNameVersion(t *testing.T) {
	t.Parallel()
	for exe, want := range map[string]string{
		"/usr/bin/python3.11": "3.11", "/usr/bin/python3.11 (deleted)": "3.11", "/usr/sbin/php-fpm8.2": "8.2", "/usr/bin/php8.2": "8.2",
		"/usr/bin/php-cgi8.2": "8.2", "/usr/bin/ruby3.1": "3.1", "/usr/bin/perl5.36.0": "5.36.0",
		"/usr/bin/python3": "", "/usr/bin/python": "", "/usr/bin/python3.11-dbg": "", "/usr/bin/python3..1": "", "/usr/bin/python3.": "",
		"/usr/bin/php.8": "", "/srv/3.11": "", "/usr/bin/xpython3.11": "", "": "", "/usr/bin/ruby1.2.3.4.5.6.7.8.9": "",
	} {
		if got := nameVersion(exe); got != want {
			t.Errorf("%q: %q, want %q", exe, got, want)
		}
	}
}

func TestScanVersion(t *testing.T) {
	t.Parallel()
	const text = "\x00nginx version: nginx/1.22.1\x00"
	for name, c := range map[string]struct{ file, want string }{
		"nginx":           {text, "1.22.1"},
		"at its end":      {"nginx version: nginx/1.22.1", "1.22.1"},
		"built by":        {"nginx version: nginx/1.29.7 (Ubuntu)\n", "1.29.7"},
		"openresty":       {"nginx version: openresty/1.21.4.1\n", "1.21.4.1"},
		"the second":      {"nginx version: nginx version: other/1.2\x00" + text, "1.22.1"},
		"another":         {"nginx version: other/1.2", ""},
		"no digits":       {"nginx version: nginx/x", ""},
		"no release":      {"nginx version: nginx/" + strings.Repeat("1", 100), ""},
		"cut off":         {text[:15], ""},
		"empty":           {"", ""},
		"beyond the most": {strings.Repeat("x", maxScan) + text, ""},
		"just within":     {strings.Repeat("x", maxScan-len(text)) + text, "1.22.1"},
	} {
		if got := scanVersion(strings.NewReader(c.file)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	// Wherever a piece ends.
	for before := 64<<10 - 80; before < 64<<10+2; before++ {
		file := strings.Repeat("nginx ", 20_000)[:before] + text + strings.Repeat("x", 100)
		if got := scanVersion(iotest.HalfReader(strings.NewReader(file))); got != "1.22.1" {
			t.Fatalf("after %d bytes: %q", before, got)
		}
	}
	if got := scanVersion(io.MultiReader(strings.NewReader("x"), iotest.ErrReader(errors.New("bad disk")))); got != "" {
		t.Errorf("of what can't be read: %q", got)
	}
}

func FuzzScanVersion(f *testing.F) {
	f.Add("nginx version: nginx/1.22.1")
	f.Add("nginx version: openresty/1..2")
	f.Fuzz(func(t *testing.T, file string) {
		v := scanVersion(strings.NewReader(file))
		if len(v) > maxVersion || strings.Trim(v, "0123456789.") != "" || v != "" && !strings.Contains(file, "/"+v) {
			t.Errorf("%q of %q", v, file)
		}
	})
}
