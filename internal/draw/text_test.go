package draw

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestSparkline(t *testing.T) {
	minute := make([]int, 60)
	for i := range minute {
		minute[i] = 400
	}
	tests := []struct {
		name   string
		values []int
		width  int
		want   string
		ascii  string
	}{
		{"nothing", nil, 10, "", ""},
		{"no room", []int{1}, 0, "", ""},
		{"negative room", []int{1}, -1, "", ""},
		{"flat zero", []int{0, 0, 0}, 10, "▁▁▁", "___"},
		{"flat", []int{5, 5, 5}, 10, "███", "###"},
		{"every mark", []int{0, 1, 2, 3, 4, 5, 6, 7}, 8, "▁▂▃▄▅▆▇█", "_.:-=+*#"},
		{"small is not 0", []int{0, 1, 1_000_000}, 3, "▁▂█", "_.#"},
		{"below 0 is 0", []int{-5, 5}, 2, "▁█", "_#"},
		{"summed", []int{1, 0, 2, 2, 0, 0, 7, 0}, 4, "▂▅▁█", ".=_#"},
		{"one column", []int{1, 2, 3}, 1, "█", "#"},
		{"uneven: a steady rate is flat", minute[:59], 20, strings.Repeat("█", 20), strings.Repeat("#", 20)},
		{"60 in 40", minute, 40, strings.Repeat("█", 30), strings.Repeat("#", 30)},
		{"60 in 59", minute, 59, strings.Repeat("█", 30), strings.Repeat("#", 30)},
		{"huge: no overflow", []int{1 << 62, 1 << 62, 1 << 62, 1 << 61}, 2, "█▇", "#*"},
	}
	for _, tt := range tests {
		if got := Sparkline(tt.values, tt.width, false); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if got := (Style{ASCII: true}).Sparkline(tt.values, tt.width); got != tt.ascii {
			t.Errorf("%s in ASCII: %q, want %q", tt.name, got, tt.ascii)
		}
	}
}

func TestEscapeShort(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
		cut  bool
	}{
		{"", 0, "", false},
		{"abc", 3, "abc", false},
		{"abc", 2, "ab", true},
		{"abc", 0, "", true},
		{"aö", 3, "aö", false},
		{"aö", 2, "a", true},
		{"日本", 5, "日", true},
		{"a\U0001F600", 4, "a", true},
		{"\x1b[2J", 1, `\x1b`, true},
		{"\x80\x80\x80\x80\x80\x80", 5, `\x80\x80`, true}, // no UTF-8: up to three fewer
		{"ö", 1, "", true},
	} {
		if got, cut := EscapeShort(tt.in, tt.most); got != tt.want || cut != tt.cut {
			t.Errorf("EscapeShort(%q, %d) = %q, %v, want %q, %v", tt.in, tt.most, got, cut, tt.want, tt.cut)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "",
		"php-fpm: pool www":                   "php-fpm: pool www",
		`C:\x \u202e`:                         `C:\x \u202e`,
		"größe 日本 ✓ e\u0301":                  "größe 日本 ✓ e\u0301",
		"a\x1b[31mred":                        `a\x1b[31mred`,
		"one\ntwo\r\t\x00\x7f":                `one\x0atwo\x0d\x09\x00\x7f`,
		"\u0085\u009b31m":                     `\u0085\u009b31m`,
		"\u202aa\u202bb\u202cc\u202dd\u202ee": `\u202aa\u202bb\u202cc\u202dd\u202ee`,
		"\u2066\u2067\u2068\u2069":            `\u2066\u2067\u2068\u2069`,
		"\u200e\u200f\u061c":                  `\u200e\u200f\u061c`,
		"\u200b\u200c\u200d\u2060\ufeff":      `\u200b\u200c\u200d\u2060\ufeff`,
		"\u2028\u2029":                        `\u2028\u2029`,
		"soft\u00adhyphen\u00a0nbsp":          `soft\u00adhyphen\u00a0nbsp`,
		"\u3164\uffa0\u2800\ufe0f\u034f":      `\u3164\uffa0\u2800\ufe0f\u034f`,
		"\U000e0041tag\U000e0101":             `\U000e0041tag\U000e0101`,
		"\ue000private":                       `\ue000private`,
		"bad\xff\xc3":                         `bad\xff\xc3`,
		"\xed\xa0\x80 surrogate":              `\xed\xa0\x80 surrogate`,
		"\ufffd is a character":               "\ufffd is a character",
		"\ufffd\xff":                          "\ufffd" + `\xff`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
	if n := testing.AllocsPerRun(10, func() { Escape("php-fpm größe") }); n > 0 {
		t.Errorf("escaping a clean string makes %v allocations", n)
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"php-fpm", "a\x1b[31m\u202e\n", "\xff\ufffd", "日本\u2066\u200b", "\u061c\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := Escape(in)
		if !utf8.ValidString(out) {
			t.Fatalf("%q: not UTF-8: %q", in, out)
		}
		plain := true
		for _, r := range in {
			plain = plain && r >= ' ' && r < 0x7F
		}
		if plain && out != in {
			t.Fatalf("plain %q became %q", in, out)
		}
		for _, r := range out {
			if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Variation_Selector) {
				t.Fatalf("%q: %U is left in %q", in, r, out)
			}
		}
		if len(out) < len(in) {
			t.Fatalf("%q shrank to %q", in, out)
		}
	})
}

func TestWidth(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "abc": 3, "größe": 5, "日本": 4, "ｆｕｌｌ": 8, "e\u0301": 1, "한국": 4, "⚡": 2, "😀": 2, "▁█": 2,
		"…": 1, "—": 1, "\x1b\n": 0, "\u200b": 0, "\U00020000": 2, "ア": 2, "ｱ": 1, "§°": 2,
	} {
		if got := Width(s); got != want {
			t.Errorf("Width(%q) = %d, want %d", s, got, want)
		}
	}
	wideIsSorted(t)
}

func wideIsSorted(t *testing.T) {
	t.Helper()
	last := uint32(0)
	for _, r := range wide.R16 {
		if uint32(r.Lo) <= last || r.Hi < r.Lo {
			t.Errorf("%U is out of order", r.Lo)
		}
		last = uint32(r.Hi)
	}
	for _, r := range wide.R32 {
		if r.Lo <= last || r.Hi < r.Lo {
			t.Errorf("%U is out of order", r.Lo)
		}
		last = r.Hi
	}
}

func TestTruncate(t *testing.T) {
	for _, tt := range []struct {
		in   string
		w    int
		want string
	}{
		{"hello", 10, "hello"},
		{"hello", 5, "hello"},
		{"hello", 4, "hel…"},
		{"hello", 1, "…"},
		{"hello", 0, ""},
		{"hello", -1, ""},
		{"", 3, ""},
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"},
		{"日本語", 3, "日…"},
		{"日本語", 2, "…"},
		{"a日", 2, "a…"},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"},
		{"e\u0301e\u0301e\u0301", 2, "e\u0301…"},
	} {
		if got := Truncate(tt.in, tt.w); got != tt.want {
			t.Errorf("Truncate(%q, %d) = %q, want %q", tt.in, tt.w, got, tt.want)
		}
	}
	if got := (Style{ASCII: true}).Truncate("hello", 4); got != "hel~" {
		t.Errorf("in ASCII: %q", got)
	}
	if got := (Style{}).Truncate("hello", 4); got != "hel…" {
		t.Errorf("in UTF-8: %q", got)
	}
}

func FuzzTruncate(f *testing.F) {
	f.Add("hello", 4)
	f.Add("日本語e\u0301", 5)
	f.Add("\xff\u200b", 0)
	f.Fuzz(func(t *testing.T, s string, w int) {
		w %= 200
		got := Truncate(s, w)
		if Width(got) > max(0, w) {
			t.Fatalf("Truncate(%q, %d) = %q is %d wide", s, w, got, Width(got))
		}
		if w > 0 && Width(s) <= w && got != s {
			t.Fatalf("Truncate(%q, %d) = %q, but it fits", s, w, got)
		}
		if got != s && !strings.HasPrefix(s, strings.TrimSuffix(got, "…")) {
			t.Fatalf("Truncate(%q, %d) = %q is no beginning of it", s, w, got)
		}
		for _, padded := range []string{PadRight(got, w), PadLeft(got, w)} {
			if Width(padded) != max(0, w) {
				t.Fatalf("%q is %d wide, want %d", padded, Width(padded), w)
			}
		}
	})
}

func TestPad(t *testing.T) {
	for _, tt := range []struct {
		in          string
		w           int
		right, left string
	}{
		{"ab", 4, "ab  ", "  ab"},
		{"ab", 2, "ab", "ab"},
		{"abc", 2, "abc", "abc"},
		{"日", 3, "日 ", " 日"},
		{"", 2, "  ", "  "},
		{"", -1, "", ""},
	} {
		if got := PadRight(tt.in, tt.w); got != tt.right {
			t.Errorf("PadRight(%q, %d) = %q, want %q", tt.in, tt.w, got, tt.right)
		}
		if got := PadLeft(tt.in, tt.w); got != tt.left {
			t.Errorf("PadLeft(%q, %d) = %q, want %q", tt.in, tt.w, got, tt.left)
		}
	}
}

func TestStyle(t *testing.T) {
	on, off := Style{Color: true}, Style{}
	for _, tt := range []struct {
		f    func(Style, string) string
		want string
	}{
		{Style.Red, "\x1b[31mx\x1b[0m"},
		{Style.Yellow, "\x1b[33mx\x1b[0m"},
		{Style.Green, "\x1b[32mx\x1b[0m"},
		{Style.Bold, "\x1b[1mx\x1b[0m"},
		{Style.Dim, "\x1b[2mx\x1b[0m"},
	} {
		if got := tt.f(on, "x"); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
		if got := tt.f(off, "x"); got != "x" {
			t.Errorf("without colour: %q", got)
		}
		if got := tt.f(on, ""); got != "" {
			t.Errorf("of nothing: %q", got)
		}
	}
}

func TestDetect(t *testing.T) {
	type env map[string]string
	for _, tt := range []struct {
		terminal bool
		env      env
		want     Style
	}{
		{true, env{}, Style{Color: true}},
		{false, env{}, Style{}},
		{true, env{"TERM": "xterm-256color", "LANG": "en_GB.UTF-8"}, Style{Color: true}},
		{true, env{"TERM": "dumb"}, Style{}},
		{true, env{"NO_COLOR": "1"}, Style{}},
		{true, env{"NO_COLOR": "0"}, Style{}},
		{true, env{"NO_COLOR": ""}, Style{Color: true}},
		{false, env{"LANG": "C"}, Style{ASCII: true}},
		{false, env{"LANG": "POSIX"}, Style{ASCII: true}},
		{false, env{"LANG": "C.utf8"}, Style{}},
		{false, env{"LANG": "de_DE.ISO-8859-1"}, Style{ASCII: true}},
		{false, env{"LANG": "en_GB.UTF-8", "LC_ALL": "C"}, Style{ASCII: true}},
		{false, env{"LANG": "C", "LC_ALL": "en_GB.utf-8"}, Style{}},
		{false, env{"LANG": "C", "LC_CTYPE": "en_GB.UTF-8"}, Style{}},
		{true, env{"LANG": "C", "NO_COLOR": "1"}, Style{ASCII: true}},
	} {
		got := Detect(tt.terminal, func(name string) string { return tt.env[name] })
		if got != tt.want {
			t.Errorf("Detect(%v, %v) = %+v, want %+v", tt.terminal, tt.env, got, tt.want)
		}
	}
}
