package draw

import (
	"math"
	"strconv"
	"strings"
)

// Count returns n in full, with commas: "28,232".
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = s[:1], s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// Short returns n in three significant figures with a decimal unit: "470",
// "1.5k", "1.2M". Trailing zeros are dropped. What lies between 0 and 0.001 is
// "<0.001". An unknown number (NaN) is "?".
func Short(n float64) string {
	switch {
	case math.IsNaN(n):
		return "?"
	case n < 0:
		return negative(Short(-n))
	case math.IsInf(n, 0):
		return "inf"
	case n == 0:
		return "0"
	case n < 0.001:
		return "<0.001"
	}
	const units = " kMGTPE"
	unit := 0
	for {
		s := significant(n)
		// Rounding may have carried 999.6 to 1000: the next unit is due.
		if s != "1000" && n < 1000 || unit == len(units)-1 {
			return strings.TrimRight(s+units[unit:unit+1], " ")
		}
		n /= 1000
		unit++
	}
}

// significant rounds to three significant figures, without exponent and
// without trailing zeros.
func significant(n float64) string {
	n, _ = strconv.ParseFloat(strconv.FormatFloat(n, 'e', 2, 64), 64)
	return strconv.FormatFloat(n, 'f', -1, 64)
}

// negative puts the sign where it reads well: "-1.5k", ">-0.001".
func negative(s string) string {
	switch s[0] {
	case '<':
		return ">-" + s[1:]
	case '?', '0':
		if s == "?" || s == "0" {
			return s
		}
	}
	return "-" + s
}

// Rate returns a number per second as [Short] does: "470/s", "12.5/s",
// "0.05/s", "0/s".
func Rate(perSecond float64) string { return Short(perSecond) + "/s" }

// Duration returns seconds in the one or two units that matter: "3 ms",
// "1.2 s", "41 s", "2 min 5 s", "3 h", "2 d 4 h". Half a unit rounds up, and
// what rounds to a full larger unit is written as such. Between 0 and 0.1 ms it
// is "<0.1 ms". An unknown duration (NaN) is "?".
func Duration(seconds float64) string {
	switch {
	case math.IsNaN(seconds):
		return "?"
	case seconds < 0:
		return negative(Duration(-seconds))
	case math.IsInf(seconds, 0):
		return "inf"
	case seconds == 0:
		return "0 s"
	case seconds < 0.0001:
		return "<0.1 ms"
	}
	if ms := seconds * 1000; ms < 9.95 {
		return tenth(ms) + " ms"
	} else if ms < 999.5 {
		return whole(ms) + " ms"
	}
	switch {
	case seconds < 9.95:
		return tenth(seconds) + " s"
	case seconds < 59.5:
		return whole(seconds) + " s"
	case seconds < 3599.5:
		return two(seconds, 60, "min", 1, "s")
	case seconds < 24*3600-30:
		return two(seconds, 3600, "h", 60, "min")
	case seconds < 1000*24*3600:
		return two(seconds, 24*3600, "d", 3600, "h")
	}
	return Short(seconds/(24*3600)) + " d"
}

// two writes v in a large unit and, unless it is 0, the rest in a small one.
func two(v, large float64, largeName string, small float64, smallName string) string {
	n := int64(math.Round(v / small))
	per := int64(large / small)
	s := strconv.FormatInt(n/per, 10) + " " + largeName
	if rest := n % per; rest != 0 {
		s += " " + strconv.FormatInt(rest, 10) + " " + smallName
	}
	return s
}

func whole(v float64) string { return strconv.FormatFloat(math.Round(v), 'f', 0, 64) }

// tenth rounds to one decimal, half up, and drops a zero.
func tenth(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// Percent returns a ratio as whole per cent: 0.5 is "50 %". Only 0 is "0 %" and
// only 1 is "100 %": what would round there from elsewhere is "< 1 %",
// "> 99 %" or "> 100 %". An unknown ratio (NaN) is "?", one below 0, which is no
// share of anything, "< 0 %".
func Percent(ratio float64) string {
	switch {
	case math.IsNaN(ratio):
		return "?"
	case ratio < 0:
		return "< 0 %"
	case math.IsInf(ratio, 0):
		return "inf %"
	case ratio == 0:
		return "0 %"
	case ratio == 1:
		return "100 %"
	}
	switch s := whole(ratio * 100); {
	case s == "0":
		return "< 1 %"
	case s == "100" && ratio < 1:
		return "> 99 %"
	case s == "100":
		return "> 100 %"
	default:
		return s + " %"
	}
}
