package report

import (
	"cmp"
	"io"
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// Sockets writes 4-tuples to w, a line each; where addresses are too long for
// one line, two or three. truncated says that there are more. The error is w's.
func Sockets(w io.Writer, rows []snapshot.Socket, truncated bool, o Options) error {
	p := &page{Options: o.withDefaults()}
	if len(rows) == 0 {
		p.line(plain("No socket matches."))
	} else {
		p.sockets(rows)
	}
	if truncated {
		p.paragraph(0, 0, p.Style.Yellow, "There are more: --limit shows more, and --state, --remote, --port or --older fewer.")
	}
	_, err := w.Write(p.text.Bytes())
	return err
}

// The columns of a socket. From colAge on they are right-aligned.
const (
	colState = iota
	colLocal
	colRemote
	colAge
)

func (p *page) sockets(rows []snapshot.Socket) {
	cells := make([][]string, len(rows)+1)
	cells[0] = []string{"STATE", "LOCAL", "REMOTE", "AGE/TIMER", "RECV-Q", "SEND-Q", "UID", "PROCESS"}
	ownerless := false
	for i, s := range rows {
		local, state := s.Local, strings.ToUpper(s.State)
		if s.Device != "" {
			local += "%" + s.Device
		}
		if state == "ESTABLISHED" {
			state = "ESTAB"
		}
		uid, process := "–", "–"
		switch {
		case s.UID == nil || s.Inode == 0:
			ownerless = true
		case s.PID == 0:
			uid, process = strconv.Itoa(int(*s.UID)), "inode "+strconv.Itoa(int(s.Inode))
		default:
			uid, process = strconv.Itoa(int(*s.UID)), s.Comm+" ("+strconv.Itoa(s.PID)+")"
		}
		cells[i+1] = []string{state, local, s.Remote, age(s), strconv.Itoa(int(s.RecvQ)), strconv.Itoa(int(s.SendQ)), uid, process}
	}
	p.table(cells)
	if ownerless {
		p.paragraph(0, 0, p.Style.Dim, "–: no owner; the process has closed the socket (TIME_WAIT), or none has accepted it yet.")
	}
}

// table writes rows of cells, the first being the heads: a line each if that
// is wide enough for all, else the addresses and the rest in lines of their own.
func (p *page) table(cells [][]string) {
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for i := range row {
			row[i] = p.clean(row[i])
			widths[i] = max(widths[i], draw.Width(row[i]))
		}
	}
	total := len(widths) - 1
	for _, n := range widths {
		total += n
	}
	for i, row := range cells {
		paint := p.when(i == 0, p.Style.Dim)
		state, numbers := draw.PadRight(row[colState], widths[colState])+" ", ""
		for j := colAge; j < len(row); j++ {
			numbers += " " + draw.PadLeft(row[j], widths[j])
		}
		if total <= p.Width {
			p.line(span{state + draw.PadRight(row[colLocal], widths[colLocal]) + " " + draw.PadRight(row[colRemote], widths[colRemote]) + numbers, paint})
			continue
		}
		ends := state + join(" "+p.clean("→")+" ", row[colLocal], row[colRemote])
		if draw.Width(ends) <= p.Width {
			p.line(span{ends, paint})
		} else {
			p.line(span{state + row[colLocal], paint})
			p.line(plain(strings.Repeat(" ", len(state)-2)+"→ "), span{row[colRemote], paint})
		}
		p.line(plain("  "), span{numbers, p.Style.Dim})
	}
}

// age is the time in the state, else what the kernel waits for; tight, since
// the column is.
func age(s snapshot.Socket) string {
	tight := strings.NewReplacer(" min", "m", " ", "")
	if s.AgeSeconds != nil {
		if s.AgeAtLeast {
			return "≥" + tight.Replace(draw.Duration(*s.AgeSeconds))
		}
		return tight.Replace(draw.Duration(*s.AgeSeconds))
	}
	if s.Timer != "" && s.TimerSeconds != nil {
		return s.Timer + " " + tight.Replace(draw.Duration(*s.TimerSeconds))
	}
	return cmp.Or(s.Timer, "–")
}
