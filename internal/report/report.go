// Package report turns a report into text for the person who was woken by it:
// the verdict in a sentence, the findings and what to do, the flows nearest to
// trouble, each namespace's limits, and what was left out.
//
// It owns the layout only. It judges nothing (findings come with the report),
// computes no rate, and keeps nothing between two calls: the same report and
// the same [Options] give the same bytes. No line is wider than asked for.
// Every string of a report may have been written by somebody hostile, so all
// text is escaped on its way to a line, in one place.
package report

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// Options say how a report looks. The zero value is plain UTF-8 in 80 columns.
type Options struct {
	Style draw.Style
	// Width is the number of columns; 0 is 80, and less than 40 is 40.
	Width int
	// Flows bounds the flows shown per namespace; 0 is 10.
	Flows int
	// Verbose shows every recommendation, with effect, caveats and
	// references, and not the first alone.
	Verbose bool
}

// Bounds of what is shown, so that a hostile report can't flood a terminal. What
// goes beyond is counted.
const (
	maxFindings   = 20
	maxNamespaces = 32 // written whole
	maxOthers     = 40 // in a line each
	maxGaps       = 20
	maxLines      = 60 // of one text
)

func (o Options) withDefaults() Options {
	if o.Width == 0 {
		o.Width = 80
	}
	if o.Flows <= 0 {
		o.Flows = 10
	}
	o.Width = max(o.Width, 40)
	return o
}

// Text writes r to w. The error is w's.
func Text(w io.Writer, r *snapshot.Report, o Options) error {
	p := &page{Options: o.withDefaults()}
	namespaces := slices.DeleteFunc(slices.Clone(r.Namespaces), func(ns *snapshot.Namespace) bool { return ns == nil })
	if len(namespaces) < len(r.Namespaces) {
		whole := *r
		whole.Namespaces = namespaces
		r = &whole
	}
	p.verdict(r)
	p.findings(r)
	shown, rest := apart(r)
	for _, ns := range shown {
		p.namespace(ns)
	}
	p.others(r, rest)
	p.gaps(r)
	_, err := w.Write(p.text.Bytes())
	return err
}

// A page collects lines.
type page struct {
	Options
	text bytes.Buffer
}

// A span is text in one colour; a nil paint is none.
type span struct {
	text  string
	paint func(string) string
}

func plain(text string) span { return span{text: text} }

// line writes one line, cut to the width. It is the only way onto the page, so
// that no text is unescaped and no line too wide.
func (p *page) line(spans ...span) {
	left := p.Width
	texts := make([]string, len(spans))
	for i, s := range spans {
		texts[i] = p.Style.Truncate(p.clean(s.text), left)
		left -= draw.Width(texts[i])
	}
	for i := len(texts) - 1; i >= 0; i-- {
		if texts[i] = strings.TrimRight(texts[i], " "); texts[i] != "" {
			break
		}
	}
	for i, text := range texts {
		if spans[i].paint != nil {
			text = spans[i].paint(text)
		}
		p.text.WriteString(text)
	}
	p.text.WriteByte('\n')
}

func (p *page) blank() { p.text.WriteByte('\n') }

// clean escapes text, and in ASCII style leaves nothing else in it. Doing it
// twice changes nothing.
func (p *page) clean(s string) string { return p.Style.Clean(s) }

func (p *page) width(s string) int { return draw.Width(p.clean(s)) }

// paragraph writes text in words, indented; further lines are indented by hang
// more. A line end in the text is no line end here: it is escaped like the
// rest, so that no name can pose as a line of the report.
func (p *page) paragraph(indent, hang int, paint func(string) string, text string) {
	for i, part := range draw.Wrap(p.clean(text), p.Width-indent, p.Width-indent-hang, maxLines) {
		margin := indent
		if i > 0 {
			margin += hang
		}
		p.line(plain(strings.Repeat(" ", margin)), span{part, paint})
	}
}

// verbatim writes lines as they are, such as a configuration to copy. What is
// too wide goes on in a line of its own, marked.
func (p *page) verbatim(indent int, text string) {
	const mark = "↳ "
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	margin := strings.Repeat(" ", indent)
	for _, l := range lines[:min(len(lines), maxLines)] {
		rest := p.clean(strings.ReplaceAll(l, "\t", "    "))
		head, rest := draw.Cut(rest, p.Width-indent)
		p.line(plain(margin), plain(head))
		for rest != "" {
			head, rest = draw.Cut(rest, p.Width-indent-p.width(mark))
			p.line(plain(margin), plain(mark), plain(head))
		}
	}
	if extra := len(lines) - maxLines; extra > 0 {
		p.line(plain(margin), plain("... "+plural(extra, "more line")))
	}
}

// join puts parts together, without the empty ones.
func join(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(s string) bool { return s == "" }), sep)
}

// plural counts things: "1 flow", "2,000 flows".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if strings.HasSuffix(thing, "s") {
		return draw.Count(int64(n)) + " " + thing + "es"
	}
	return draw.Count(int64(n)) + " " + thing + "s"
}
