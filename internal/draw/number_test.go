package draw

import (
	"math"
	"testing"
)

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 28232: "28,232", 131072: "131,072", 1000000: "1,000,000",
		-1: "-1", -999: "-999", -1000: "-1,000", -123456: "-123,456",
		math.MaxInt64: "9,223,372,036,854,775,807", math.MinInt64: "-9,223,372,036,854,775,808",
	} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}

type number struct {
	in   float64
	want string
}

func check(t *testing.T, name string, f func(float64) string, tests []number) {
	t.Helper()
	for _, tt := range tests {
		if got := f(tt.in); got != tt.want {
			t.Errorf("%s(%v) = %q, want %q", name, tt.in, got, tt.want)
		}
	}
}

func TestShort(t *testing.T) {
	check(t, "Short", Short, []number{
		{0, "0"},
		{math.Copysign(0, -1), "0"},
		{1, "1"},
		{470, "470"},
		{12.5, "12.5"},
		{12.345, "12.3"},
		{0.05, "0.05"},
		{0.1234, "0.123"},
		{0.001, "0.001"},
		{0.000999, "<0.001"},
		{1e-300, "<0.001"},
		{99.94, "99.9"},
		{99.96, "100"},
		{999, "999"},
		{999.4, "999"},
		{999.6, "1k"},
		{1000, "1k"},
		{1004, "1k"},
		{1006, "1.01k"},
		{1500, "1.5k"},
		{28232, "28.2k"},
		{999400, "999k"},
		{999600, "1M"},
		{1_200_000, "1.2M"},
		{3e9, "3G"},
		{4.56e12, "4.56T"},
		{1e15, "1P"},
		{1e18, "1E"},
		{1e21, "1000E"},
		{-1500, "-1.5k"},
		{-0.0001, ">-0.001"},
		{-0.5, "-0.5"},
		{math.NaN(), "?"},
		{math.Inf(1), "inf"},
		{math.Inf(-1), "-inf"},
	})
}

func TestRate(t *testing.T) {
	check(t, "Rate", Rate, []number{
		{470, "470/s"}, {12.5, "12.5/s"}, {0.05, "0.05/s"}, {0, "0/s"}, {35000, "35k/s"}, {math.NaN(), "?/s"},
	})
}

func TestDuration(t *testing.T) {
	check(t, "Duration", Duration, []number{
		{0, "0 s"},
		{0.00005, "<0.1 ms"},
		{0.0001, "0.1 ms"},
		{0.003, "3 ms"},
		{0.0034, "3.4 ms"},
		{0.00994, "9.9 ms"},
		{0.00996, "10 ms"},
		{0.999, "999 ms"},
		{0.9994, "999 ms"},
		{0.9996, "1 s"},
		{1, "1 s"},
		{1.2, "1.2 s"},
		{1.25, "1.3 s"},
		{9.94, "9.9 s"},
		{9.96, "10 s"},
		{41, "41 s"},
		{59.4, "59 s"},
		{59.6, "1 min"},
		{60, "1 min"},
		{125, "2 min 5 s"},
		{120.4, "2 min"},
		{3599, "59 min 59 s"},
		{3599.6, "1 h"},
		{3 * 3600, "3 h"},
		{3*3600 + 12*60, "3 h 12 min"},
		{7229, "2 h"},
		{7231, "2 h 1 min"},
		{86369, "23 h 59 min"},
		{86371, "1 d"},
		{86400, "1 d"},
		{2*86400 + 4*3600, "2 d 4 h"},
		{999 * 86400, "999 d"},
		{1e12, "11.6M d"},
		{1e300, significant(1e300/86400/1e18) + "E d"},
		{-41, "-41 s"},
		{-0.00001, ">-0.1 ms"},
		{math.NaN(), "?"},
		{math.Inf(1), "inf"},
	})
}

func TestPercent(t *testing.T) {
	check(t, "Percent", Percent, []number{
		{0, "0 %"},
		{math.Copysign(0, -1), "0 %"},
		{1e-9, "< 1 %"},
		{0.0049, "< 1 %"},
		{0.006, "1 %"},
		{0.01, "1 %"},
		{0.29, "29 %"},
		{0.5, "50 %"},
		{0.99, "99 %"},
		{0.994, "99 %"},
		{0.995, "> 99 %"},
		{0.9999999, "> 99 %"},
		{math.Nextafter(1, 0), "> 99 %"},
		{1, "100 %"},
		{math.Nextafter(1, 2), "> 100 %"},
		{1.004, "> 100 %"},
		{1.006, "101 %"},
		{12, "1200 %"},
		{-0.1, "< 0 %"},
		{math.NaN(), "?"},
		{math.Inf(1), "inf %"},
	})
}

// Whatever the number: something is written, it is short, and what is above 0
// is not written as 0 or below.
func FuzzNumbers(f *testing.F) {
	for _, v := range []float64{0, 0.001, 0.9996, 59.5, 999.5, 999.6, 1e6, 3599.5, 86370, 1e300, -1, math.Inf(1), math.NaN()} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v float64) {
		for name, s := range map[string]string{"Short": Short(v), "Rate": Rate(v), "Duration": Duration(v), "Percent": Percent(v)} {
			if s == "" || len(s) > 320 {
				t.Errorf("%s(%v) = %q", name, v, s)
			}
			if v > 0 && (s == "0" || s == "0/s" || s == "0 s" || s == "0 %" || s[0] == '-') {
				t.Errorf("%s(%v) = %q: not 0", name, v, s)
			}
		}
		if v >= 0.001 && v < 1e18 && len(Short(v)) > len("0.00123") {
			t.Errorf("Short(%v) = %q: too long", v, Short(v))
		}
	})
}
