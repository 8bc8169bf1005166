package draw

// Sparkline draws values as a row of at most width columns, the first value on
// the left, scaled to the greatest:
//
//	▁▂▃▄▅▆▇█   _.:-=+*# in ASCII
//
// The lowest mark is 0 and nothing else: any value above 0 shows. Values below
// 0 count as 0. If there are more values than columns, each column stands for
// the same number of neighbours, summed; where the values don't divide evenly,
// the first column has fewer and is scaled up, so that a steady rate stays a
// flat line. The row is then shorter than width: 60 values in 40 columns take 30.
func Sparkline(values []int, width int, ascii bool) string {
	if width <= 0 || len(values) == 0 {
		return ""
	}
	marks := []rune("▁▂▃▄▅▆▇█")
	if ascii {
		marks = []rune("_.:-=+*#")
	}
	columns := bucket(values, width)
	top := 0.0
	for _, v := range columns {
		top = max(top, v)
	}
	row := make([]rune, len(columns))
	for i, v := range columns {
		row[i] = marks[0]
		if v > 0 {
			// (0, top] in equal steps onto marks 1 … last.
			last := len(marks) - 1
			row[i] = marks[min(last, 1+int(v/top*float64(last)*(1-1e-12)))]
		}
	}
	return string(row)
}

// bucket sums neighbours into at most width columns.
func bucket(values []int, width int) []float64 {
	size := (len(values) + width - 1) / width
	columns := make([]float64, (len(values)+size-1)/size)
	first := len(values) - (len(columns)-1)*size // 1 … size values
	for i, v := range values {
		column := 0
		if i >= first {
			column = 1 + (i-first)/size
		}
		columns[column] += float64(max(0, v))
	}
	columns[0] *= float64(size) / float64(first)
	return columns
}
