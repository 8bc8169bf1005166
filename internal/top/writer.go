package top

import (
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// Bounds of a page, so that a hostile report can't make it endless.
const (
	maxParagraph = 60
	maxPage      = 2000
)

// labelWidth is where the text of a field begins.
const labelWidth = 12

// A writer collects the rows of a page.
type writer struct {
	style draw.Style
	width int
	rows  []row
}

// line adds a row, cut to the width when it is shown.
func (w *writer) line(spans ...span) {
	if len(w.rows) < maxPage {
		w.rows = append(w.rows, spans)
	}
}

func (w *writer) blank() { w.line() }

// head adds a title.
func (w *writer) head(title string) { w.line(span{title, bold}) }

// paragraph adds text in words, indented; further lines by hang more.
func (w *writer) paragraph(indent, hang int, text string) {
	w.spread(strings.Repeat(" ", indent), strings.Repeat(" ", indent+hang), text)
}

// field adds text behind a label; nothing for no text.
func (w *writer) field(label, text string) {
	if text != "" {
		w.spread(draw.PadRight(label, labelWidth), strings.Repeat(" ", labelWidth), text)
	}
}

// spread wraps text behind a first and further margins.
func (w *writer) spread(first, further, text string) {
	lines := draw.Wrap(w.style.Clean(text), max(1, w.width-draw.Width(first)), max(1, w.width-draw.Width(further)), maxParagraph)
	for i, line := range lines {
		margin := span{first, dim}
		if i > 0 {
			margin.text = further
		}
		w.line(margin, plain(line))
	}
}

// verbatim adds lines as they are, from the first column on, so that what a
// terminal selects of them is they and nothing else. What is too wide goes on in
// a line of its own, marked.
func (w *writer) verbatim(text string) {
	const rule = "    --------"
	w.line(span{rule, dim})
	defer w.line(span{rule, dim})
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		rest, mark := w.style.Clean(strings.ReplaceAll(line, "\t", "    ")), ""
		for {
			var head string
			head, rest = draw.Cut(rest, max(1, w.width-draw.Width(mark)))
			w.line(span{mark, dim}, plain(head))
			if rest == "" || len(w.rows) >= maxPage {
				break
			}
			mark = "↳ "
		}
	}
}

// related names the findings that are about the same.
func (w *writer) related(r *snapshot.Report, about func(*snapshot.Finding) bool) {
	for i := range r.Findings {
		if f := &r.Findings[i]; about(f) {
			w.spread(strings.ToUpper(string(f.Severity))+" ", "    ", f.ID+": "+f.Summary+" (3 tells what to do)")
		}
	}
}

// states says in words how many sockets are in which state, without the empty
// ones.
func states(s *snapshot.States) string {
	var parts []string
	for name, n := range s.Named {
		if n > 0 {
			parts = append(parts, draw.Count(int64(n))+" "+strings.ToUpper(name))
		}
	}
	if len(parts) == 0 {
		return "no socket"
	}
	return strings.Join(parts, ", ")
}
