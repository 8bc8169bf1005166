package truth

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/twwatch/twwatch/internal/draw"
)

var picture = flag.Bool("picture", false, "draw the pictures of twwatch top in docs/ anew")

// The pictures in docs/ are what a real terminal shows of a recorded incident.
func TestTopPictures(t *testing.T) {
	t.Parallel()
	bin := program(t)
	folder := must[string](t)(filepath.Abs(incidents))
	term := openTerminal(t, nil, folder, 100, 25, nil, bin, "top", "--as-recorded", "--source=incident.jsonl.gz")
	term.shows(`50/50 12:34:29 paused`)
	term.keys("[", "[")
	for _, p := range []struct {
		name, title string
		keys        []string
		shows       string
	}{
		{"top", "twwatch top: flows, the tightest first", nil, `30/50 12:33:48 paused`},
		{"top-finding", "twwatch top: a finding and its advice", []string{"3", "Enter", "n", "n", "n", "n"}, `^> What to do, 5 of`},
	} {
		if p.keys != nil {
			term.keys(p.keys...)
		}
		term.shows(p.shows)
		svg := terminalSVG(p.title, term.do("capture-pane", "-e", "-N", "-p"), 100)
		path := filepath.Join("../../docs", p.name+".svg")
		if *picture {
			if err := os.WriteFile(path, []byte(svg), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := must[[]byte](t)(os.ReadFile(path)); string(got) != svg {
			t.Errorf("%s isn't what the terminal shows: make picture", path)
		}
		if err := wellFormed(svg); err != nil || len(svg) > 100<<10 {
			t.Errorf("%s: %d bytes, %v", path, len(svg), err)
		}
	}
	term.keys("C-c")
	term.ends(0)
}

func wellFormed(text string) error {
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// terminalSVG draws what tmux captured with its escape sequences: text in cells,
// in the colours that twwatch uses.
func terminalSVG(title, captured string, columns int) string {
	const (
		wide, high, margin = 8.4, 18, 12 // of a cell, and around all, in pixels
	)
	lines := strings.Split(strings.TrimRight(captured, "\n"), "\n")
	var b strings.Builder
	width, height := float64(columns)*wide+2*margin, len(lines)*high+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 %.0f %d" width="%.0f" height="%d">`, width, height, width, height)
	fmt.Fprintf(&b, "\n<title>%s</title>\n", html.EscapeString(title))
	b.WriteString(`<style>text{font:14px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#d8dee4;white-space:pre}` +
		".b{font-weight:700}.d{opacity:.65}.r{fill:#ff7b72}.g{fill:#7ee787}.y{fill:#e3b341}.i{fill:#0d1117}</style>\n")
	fmt.Fprintf(&b, `<rect width="%.0f" height="%d" rx="8" fill="#0d1117"/>`+"\n", width, height)
	style := map[byte]bool{}
	for y, line := range lines {
		x := 0
		for _, piece := range regexp.MustCompile(`\x1b\[[0-9;]*m|[^\x1b]+`).FindAllString(line, -1) {
			if strings.HasPrefix(piece, "\x1b") {
				restyle(style, piece)
				continue
			}
			n := draw.Width(piece)
			left, top := margin+float64(x)*wide, margin+y*high
			x += n
			if style['i'] {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#d8dee4"/>`, left, top, float64(n)*wide, high)
			}
			blank := len(piece) - len(strings.TrimLeft(piece, " "))
			if text := strings.Trim(piece, " "); text != "" {
				fmt.Fprintf(&b, `<text x="%.1f" y="%d" textLength="%.1f"%s>%s</text>`,
					left+float64(blank)*wide, top+14, float64(draw.Width(text))*wide, classes(style), html.EscapeString(text))
			}
		}
		b.WriteByte('\n')
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// restyle takes one escape sequence.
func restyle(style map[byte]bool, sequence string) {
	codes := map[string]byte{"1": 'b', "2": 'd', "7": 'i', "31": 'r', "32": 'g', "33": 'y'}
	for code := range strings.SplitSeq(strings.Trim(sequence, "\x1b[m"), ";") {
		switch code {
		case "", "0":
			clear(style)
		case "39":
			delete(style, 'r')
			delete(style, 'g')
			delete(style, 'y')
		default:
			style[codes[code]] = true
		}
	}
}

func classes(style map[byte]bool) string {
	var names []string
	for _, c := range "bdrgyi" {
		if style[byte(c)] {
			names = append(names, string(c))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ` class="` + strings.Join(names, " ") + `"`
}
