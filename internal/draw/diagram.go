package draw

import (
	"strings"
)

// DiagramWidth and DiagramHeight are the size of [Style.StateDiagram].
const (
	DiagramWidth  = 78
	DiagramHeight = 14
)

// A StateCount is what a diagram shows of one TCP state.
type StateCount struct {
	Count int64
	// Rate is how many connections enter the state per second; 0 shows none.
	Rate float64
	// Stuck marks a state in which connections pile up, by "!" and colour.
	Stuck bool
}

// StateDiagram draws the life of TCP connections as seen from this host, after
// figure 5 of RFC 9293, with the number of those that are in each state now.
// Openings are on top, closing by this end on the left, by the peer on the
// right; ▶ is a segment sent, ◀ one received. count tells of a state by its
// kernel's name in lower case ("time_wait"); one that it doesn't know is drawn
// without a number. There are [DiagramHeight] lines of at most [DiagramWidth]
// columns.
func (st Style) StateDiagram(count func(state string) (c StateCount, known bool)) []string {
	lines := make([]string, 0, DiagramHeight)
	for line := range strings.Lines(strings.Trim(diagram, "\n") + "\n") {
		lines = append(lines, st.diagramLine(strings.TrimSuffix(line, "\n"), count))
	}
	return lines
}

// diagram is RFC 9293's figure 5 turned into the two ways of a close. A name in
// braces is a state's place, as wide as the braces reach.
const diagram = `
  connect()                                    {listen                    }
      │ SYN ▶                                      │ ◀ SYN, SYN+ACK ▶
  {syn_sent                  }                 {syn_recv                  }
      │ ◀ SYN+ACK, ACK ▶                           │ ◀ ACK
      └──────────▶ {established                 } ◀┘
      ┌────────────────────┴───────────────────────┐
      │ this end closes first: FIN ▶               │ ◀ FIN: peer closes first
  {fin_wait1                 } ── ◀ FIN ──┐    {close_wait                }
      │ ◀ ACK                {closing        }     │ close(): FIN ▶
  {fin_wait2                 }      │ ◀ ACK    {last_ack                  }
      │ ◀ FIN, ACK ▶                │              │ ◀ ACK
  {time_wait                 } ◀────┘            closed
      │ after 60 s
    closed                                     ▶ sent  ◀ received  ! piling up
`

func (st Style) diagramLine(line string, count func(string) (StateCount, bool)) string {
	var b strings.Builder
	for line != "" {
		before, after, found := strings.Cut(line, "{")
		b.WriteString(st.lines(before))
		if !found {
			break
		}
		place, rest, _ := strings.Cut(after, "}")
		name := strings.TrimSpace(place)
		c, known := count(name)
		b.WriteString(st.stateLabel(name, len(place)+2, c, known))
		line = rest
	}
	return strings.TrimRight(b.String(), " ")
}

// stateLabel is "TIME_WAIT 28,000 +470/s", in exactly width columns.
func (st Style) stateLabel(name string, width int, c StateCount, known bool) string {
	name = strings.ToUpper(name)
	if !known {
		return PadRight(name, width)
	}
	label := name + " " + Count(c.Count)
	if c.Stuck {
		label = "!" + label
	}
	if c.Rate > 0 {
		label += " +" + Rate(c.Rate)
	}
	label = st.Truncate(label, width)
	margin := blank(width - Width(label))
	switch {
	case c.Stuck:
		label = st.Bold(st.Yellow(label))
	case c.Count > 0:
		label = st.Bold(label)
	default:
		label = st.Dim(label)
	}
	return label + margin
}

// lines writes the diagram's own characters as the style can show them.
func (st Style) lines(s string) string {
	if !st.ASCII {
		return s
	}
	return strings.NewReplacer("│", "|", "─", "-", "┌", ".", "┐", ".", "└", "'", "┘", "'", "┴", "+", "▶", ">", "◀", "<").Replace(s)
}
