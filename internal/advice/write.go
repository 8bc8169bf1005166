package advice

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/internal/draw"
)

// Columns is how wide an explanation is at most; only an address may be wider.
const Columns = 78

// Write writes an explanation as plain text. What an operator's file holds is
// escaped like all that is foreign.
func (t *Text) Write(w io.Writer) error {
	b := &strings.Builder{}
	paragraph(b, "", fmt.Sprintf("%s (%s): %s", t.ID, t.Kind, t.Title))
	b.WriteByte('\n')
	paragraph(b, "", t.Says)
	if t.Drawing != "" {
		b.WriteByte('\n')
		for line := range strings.SplitSeq(t.Drawing, "\n") {
			fmt.Fprintln(b, strings.TrimRight("  "+line, " "))
		}
	}
	for _, s := range t.Sections {
		fmt.Fprintf(b, "\n%s\n", s.Heading)
		for _, line := range s.Lines {
			if s.Verbatim {
				fmt.Fprintln(b, strings.TrimRight("    "+line, " "))
				continue
			}
			mark := "  "
			if len(s.Lines) > 1 {
				mark = "  - "
			}
			paragraph(b, mark, line)
		}
	}
	if len(t.Now) > 0 {
		b.WriteString("\nOn this host right now\n")
		for _, f := range t.Now {
			paragraph(b, "  - ", f.What+": "+f.Value)
		}
	}
	if t.NowMissing != "" {
		b.WriteString("\nOn this host right now\n")
		paragraph(b, "  ", "Could not be looked up: "+t.NowMissing)
	}
	if len(t.See) > 0 {
		b.WriteString("\nSee also\n")
		paragraph(b, "  ", strings.Join(t.See, ", "))
	}
	if len(t.References) > 0 {
		b.WriteString("\nSources\n")
		for _, r := range t.References {
			paragraph(b, "  - ", r.Title)
			fmt.Fprintf(b, "    %s\n", r.URL)
		}
	}
	return writeClean(w, b.String())
}

// writeClean writes lines with nothing hidden in them.
func writeClean(w io.Writer, text string) error {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line, end := strings.CutSuffix(line, "\n")
		b.WriteString(draw.Escape(strings.ReplaceAll(line, "\t", "    ")))
		if end {
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// paragraph writes text wrapped, its first line after mark.
func paragraph(b *strings.Builder, mark, text string) {
	indent := strings.Repeat(" ", len(mark))
	line := mark
	for i, word := range strings.Fields(text) {
		if i > 0 && draw.Width(line)+1+draw.Width(word) > Columns {
			b.WriteString(line + "\n")
			line = indent + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
}

// WriteIDs lists what can be explained, by kind and group.
func WriteIDs(w io.Writer, ids []ID) error {
	b := &strings.Builder{}
	heading := ""
	for _, i := range ids {
		h := i.Kind + "s"
		if i.Kind == KindRemedy {
			h = "remedies"
		}
		if i.Group != "" {
			h += ": " + i.Group
		}
		if h != heading {
			if heading != "" {
				b.WriteByte('\n')
			}
			fmt.Fprintln(b, h)
			heading = h
		}
		line := fmt.Sprintf("  %-"+strconv.Itoa(idColumns)+"s %s", i.ID, i.Title)
		fmt.Fprintln(b, clip(line))
	}
	return writeClean(w, b.String())
}

const idColumns = 31

func clip(line string) string {
	if r := []rune(line); len(r) > Columns {
		return strings.TrimRight(string(r[:Columns-3]), " ") + "..."
	}
	return line
}
