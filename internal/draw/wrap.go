package draw

import "strings"

// Wrap breaks clean text at spaces into lines of at most first and then width
// columns; a word that is wider is broken anywhere. There is at least one line,
// and there are at most so many: the rest is left out.
func Wrap(text string, first, width, most int) []string {
	var lines []string
	limit, line := first, ""
	flush := func() {
		lines = append(lines, line)
		limit, line = width, ""
	}
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
		case Width(line)+1+Width(word) <= limit:
			line += " " + word
			continue
		default:
			flush()
		}
		for Width(word) > limit && len(lines) < most {
			line, word = Cut(word, limit)
			flush()
		}
		line = word
		if len(lines) >= most {
			break
		}
	}
	if line != "" && len(lines) < most || len(lines) == 0 {
		flush()
	}
	return lines
}

// Cut splits clean text behind at most width columns, and at least behind its
// first character.
func Cut(text string, width int) (head, rest string) {
	used := 0
	for i, r := range text {
		used += runeWidth(r)
		if used > width && i > 0 {
			return text[:i], text[i:]
		}
	}
	return text, ""
}
