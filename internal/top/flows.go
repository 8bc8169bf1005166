package top

import (
	"math"
	"strconv"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// A flowTable is the flows of the report shown, in their order.
type flowTable struct {
	list
	sort   sortKey
	invert bool
	group  grouping
	// within is the group that somebody looked into; only its flows are shown.
	within string
	inside grouping // the grouping of within; ungrouped: all flows are shown
	rows   []flowRow
	total  int // flows before the filter
}

// fill puts the report's flows in order.
func (t *flowTable) fill(r *snapshot.Report, f filter) {
	var picked flowKey
	if t.picked && t.cur < len(t.rows) {
		picked = t.rows[t.cur].key
	}
	rows := t.rows[:0]
	t.total = 0
	for _, ns := range r.Namespaces {
		t.total += len(ns.Flows)
		for i := range ns.Flows {
			fl := &ns.Flows[i]
			if !f.flow(ns, fl) {
				continue
			}
			row := rowOf(ns, fl)
			if t.inside == ungrouped || t.inside.of(&row) == t.within {
				rows = append(rows, row)
			}
		}
	}
	if t.group != ungrouped {
		rows = grouped(rows, t.group)
	}
	sortRows(rows, t.sort, t.invert)
	clear(t.rows[min(len(rows), len(t.rows)):]) // let go of reports that are gone
	t.rows = rows
	if t.picked {
		for i := range rows {
			if rows[i].key == picked {
				t.cur = i
				break
			}
		}
	}
}

// grouped joins rows of the same group.
func grouped(rows []flowRow, g grouping) []flowRow {
	var groups []flowRow
	at := map[string]int{}
	for i := range rows {
		r := &rows[i]
		name := g.of(r)
		j, known := at[name]
		if !known {
			at[name] = len(groups)
			first := *r
			first.group, first.key, first.seconds = name, flowKey{group: name}, seconds(r.flow.OpenedPerSecond)
			groups = append(groups, first)
			continue
		}
		sum := &groups[j]
		sum.add(r)
		for k, n := range r.flow.OpenedPerSecond {
			if k == len(sum.seconds) {
				sum.seconds = append(sum.seconds, 0)
			}
			sum.seconds[k] += int(n)
		}
	}
	return groups
}

// open looks into the group under the cursor.
func (t *flowTable) open() {
	t.within, t.inside, t.group = t.rows[t.cur].group, t.group, ungrouped
	t.list = list{}
}

// flowColumns are the columns of the table of flows that fit.
func flowColumns(st draw.Style, width int, many bool) []column[flowRow] {
	columns := []column[flowRow]{
		{title: "FLOW", least: 30, most: 72, sort: -1, cell: func(r *flowRow) (string, look) { return r.name(), 0 }},
		{title: "PORTS FREE", width: 12, right: true, sort: int(byPorts), cell: freeCell},
		{title: "PORTS USED", width: 16, right: true, sort: -1, rank: 5, cell: func(r *flowRow) (string, look) { return usedCell(st, r) }},
		{title: "CLOSES/S", width: 10, right: true, sort: int(byRate), rank: 2, cell: rateCell},
		{title: "TIME_WAIT", width: 11, right: true, sort: int(byTimeWait), cell: timeWaitCell},
		{title: "CLOSE_W", width: 9, right: true, sort: int(byCloseWait), rank: 1, cell: closeWaitCell},
		{title: "ESTAB", width: 9, right: true, sort: -1, rank: 6, cell: func(r *flowRow) (string, look) { return draw.Count(int64(r.established)), 0 }},
		{title: "LIFE", width: 8, right: true, sort: int(byLifetime), rank: 4, cell: lifeCell},
		{title: "  PROCESS", width: 18, sort: int(byProcessName), rank: 3, cell: func(r *flowRow) (string, look) { return "  " + r.programsName(), 0 }},
		{title: "LAST MINUTE", width: 32, sort: -1, rank: 7, cell: func(r *flowRow) (string, look) { return st.Sparkline(r.timeline(), 30), 0 }},
		{title: "LOCAL", width: 24, sort: -1, rank: 8, cell: func(r *flowRow) (string, look) { return r.localName(), 0 }},
	}
	if many {
		columns = append(columns, column[flowRow]{title: "NAMESPACE", width: 18, sort: -1, rank: 9, cell: func(r *flowRow) (string, look) { return r.nsName, 0 }})
	}
	if width < 88 { // what is in a row says more than the names of columns do
		for i := range columns {
			switch columns[i].title {
			case "FLOW":
				columns[i].least = 20
			case "PORTS FREE":
				columns[i].title, columns[i].width = "FREE", 8
			case "TIME_WAIT":
				columns[i].width = 10
			case "CLOSES/S":
				columns[i].width = 9
			case "CLOSE_W", "LIFE":
				columns[i].width--
			case "  PROCESS":
				columns[i].width = 14
			}
		}
	}
	return fit(width, columns)
}

func (r *flowRow) localName() string {
	if r.group != "" && r.count > 1 {
		return ""
	}
	return r.flow.Local
}

// programsName is the program with most of the sockets.
func (r *flowRow) programsName() string {
	if r.programs > 1 {
		return r.process + " +" + strconv.Itoa(r.programs-1)
	}
	return r.process
}

func freeCell(r *flowRow) (string, look) {
	switch {
	case r.ports == nil && r.flow.Side == snapshot.Client && r.group == "":
		return "unknown", dim
	case r.ports == nil:
		return "–", dim
	}
	bound := ""
	if r.ports.AtMost {
		bound = "≤"
	}
	return bound + draw.Count(int64(max(0, r.ports.Free))), portLook(r.share)
}

func usedCell(st draw.Style, r *flowRow) (string, look) {
	if r.share < 0 {
		return "", 0
	}
	return st.Bar(r.share, 8, slowShare) + " " + draw.PadLeft(shortPercent(r.share), 5), portLook(r.share)
}

// shortPercent is a share in a narrow column: "99 %", ">99%".
func shortPercent(share float64) string {
	switch s := draw.Percent(share); s {
	case "< 1 %":
		return "<1%"
	case "> 99 %":
		return ">99%"
	default:
		return s
	}
}

// slowShare is the share of its ports beyond which connect() has to search.
const slowShare = 0.5

// portLook warns from the half on.
func portLook(share float64) look {
	switch {
	case share >= 0.8:
		return red
	case share >= slowShare:
		return yellow
	}
	return 0
}

func rateCell(r *flowRow) (string, look) {
	if r.rate == nil {
		return "–", dim
	}
	floor := ""
	if r.rateFloor && *r.rate > 0 {
		floor = "≥"
	}
	return floor + draw.Short(*r.rate), 0
}

func timeWaitCell(r *flowRow) (string, look) {
	if r.sumFloor {
		return "≥" + draw.Count(int64(r.timeWait)), 0
	}
	return draw.Count(int64(r.timeWait)), 0
}

func closeWaitCell(r *flowRow) (string, look) {
	if r.closeWait == 0 {
		return "0", dim
	}
	return draw.Count(int64(r.closeWait)), yellow
}

func lifeCell(r *flowRow) (string, look) {
	if r.lifetime == nil || math.IsNaN(*r.lifetime) {
		return "–", dim
	}
	return tight(*r.lifetime), 0
}
