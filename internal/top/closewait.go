package top

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/draw"
)

// A waitKind is what a CLOSE_WAIT looks like by itself.
type waitKind struct{ name, words string }

const (
	// goodbye is the most bytes, the FIN among them, that a server leaves
	// unread in an idle pooled connection: a TLS close_notify, an HTTP 408.
	goodbye = 512
	// stillSends is how many seconds ago a half-closed connection sent last, at
	// most.
	stillSends = 10
)

// kindOf tells a socket by its Recv-Q, in which the peer's FIN counts one byte
// until the program has read the end. What a program's sockets mean together
// is for the findings to say.
func kindOf(w *snapshot.CloseWait) waitKind {
	sends := w.SendQ > 0 || w.LastSentSeconds != nil && *w.LastSentSeconds < stillSends &&
		(w.AgeAtMostSeconds == nil || *w.LastSentSeconds < *w.AgeAtMostSeconds)
	farewell := w.RecvQ > 1 && w.RecvQ <= goodbye && w.AgeSeconds != nil && !w.AgeAtLeast
	switch {
	case w.Inode == 0 && w.Side == snapshot.Server:
		return waitKind{"no accept()", "No accept() has taken the connection yet: the program is slow to accept, or doesn't. Nobody will see that the peer has gone until then."}
	case w.RecvQ == 0 && sends:
		return waitKind{"half-closed", "The peer has finished, and this end still sends: TCP allows that, and it is no leak."}
	case w.RecvQ == 0:
		return waitKind{"no close()", "The program has read the end of the stream and has not called close(): a leak, if it stays so."}
	case w.Side == snapshot.Client && (w.RecvQ == 1 || farewell):
		return waitKind{"idle pool?", "The program has not read the end of the stream, and nothing or a goodbye lies before it: an idle connection of a pool, as a rule, that the server has closed."}
	}
	return waitKind{"no read()", "Data lie unread before the end of the stream: the program that should read them is stuck, or busy elsewhere."}
}

// A waitSort is a column that CLOSE_WAITs are ordered by.
type waitSort int

const (
	waitByAge waitSort = iota
	waitByRecvQ
	waitByKind
	waitByOwner
	waitByRemote
	waitSorts
)

func (k waitSort) words() string {
	return []string{"age: the oldest first", "Recv-Q: the most first", "kind", "owner: by name", "remote end"}[k]
}

// A waitRow is one CLOSE_WAIT.
type waitRow struct {
	ns   *snapshot.Namespace
	wait *snapshot.CloseWait
	kind waitKind
}

func (r *waitRow) owner() string {
	if r.wait.PID == 0 {
		return cmp.Or(r.wait.Comm, "unknown")
	}
	return r.wait.Comm + " " + strconv.Itoa(r.wait.PID)
}

func sortWaits(rows []waitRow, k waitSort, invert bool) {
	age := func(w *snapshot.CloseWait) float64 {
		if w.AgeSeconds == nil {
			return -1
		}
		return *w.AgeSeconds
	}
	slices.SortStableFunc(rows, func(a, b waitRow) int {
		order := 0
		switch k {
		case waitByAge:
			order = cmp.Compare(age(b.wait), age(a.wait))
		case waitByKind:
			order = cmp.Compare(a.kind.name, b.kind.name)
		case waitByOwner:
			order = cmp.Or(cmp.Compare(a.wait.Comm, b.wait.Comm), cmp.Compare(a.wait.PID, b.wait.PID))
		case waitByRemote:
			order = cmp.Compare(a.wait.Remote, b.wait.Remote)
		case waitByRecvQ:
			order = cmp.Compare(b.wait.RecvQ, a.wait.RecvQ)
		}
		if invert {
			order = -order
		}
		return cmp.Or(order, cmp.Compare(age(b.wait), age(a.wait)), cmp.Compare(a.wait.Remote, b.wait.Remote), cmp.Compare(a.wait.Local, b.wait.Local))
	})
}

// widestEnd has room for every IPv6 address with its port.
const widestEnd = 48

// waitColumns are the columns of the CLOSE_WAIT table that fit.
func waitColumns(width int) []column[waitRow] {
	return fit(width, []column[waitRow]{
		{title: "AGE", width: 8, right: true, sort: int(waitByAge), cell: func(r *waitRow) (string, look) { return waitAge(r.wait), 0 }},
		{title: "RECV-Q", width: 9, right: true, sort: int(waitByRecvQ), rank: 3, cell: func(r *waitRow) (string, look) { return draw.Count(int64(r.wait.RecvQ)), 0 }},
		{title: "SEND-Q", width: 9, right: true, sort: -1, rank: 4, cell: func(r *waitRow) (string, look) { return draw.Count(int64(r.wait.SendQ)), 0 }},
		{title: " KIND", width: 13, sort: int(waitByKind), cell: func(r *waitRow) (string, look) { return " " + r.kind.name, yellow }},
		{title: "OWNER", width: 16, sort: int(waitByOwner), rank: 1, cell: func(r *waitRow) (string, look) { return r.owner(), 0 }},
		{title: "REMOTE", least: 20, most: widestEnd, sort: int(waitByRemote), cell: func(r *waitRow) (string, look) { return r.wait.Remote, 0 }},
		{title: "LOCAL", width: 22, sort: -1, rank: 2, cell: func(r *waitRow) (string, look) { return r.wait.Local, 0 }},
		{title: "NAMESPACE", width: 16, sort: -1, rank: 5, cell: func(r *waitRow) (string, look) { return r.ns.Name, 0 }},
	})
}

func waitAge(w *snapshot.CloseWait) string {
	if w.AgeSeconds == nil {
		return "?"
	}
	if w.AgeAtLeast {
		return "≥" + tight(*w.AgeSeconds)
	}
	return tight(*w.AgeSeconds)
}

// tight is a duration in a narrow column: "2m5s".
func tight(seconds float64) string {
	return strings.NewReplacer(" min", "m", " ", "").Replace(draw.Duration(seconds))
}

// ageWords is a CLOSE_WAIT's age within its bounds.
func ageWords(w *snapshot.CloseWait) string {
	if w.AgeSeconds == nil {
		return "unknown"
	}
	age, most := draw.Duration(*w.AgeSeconds), ""
	if w.AgeAtMostSeconds != nil {
		most = draw.Duration(*w.AgeAtMostSeconds)
	}
	switch {
	case !w.AgeAtLeast || age == most:
		return age
	case most == "":
		return "at least " + age
	}
	return age + " to " + most
}

// waitPage tells all of one CLOSE_WAIT.
func waitPage(p *writer, r *waitRow, report *snapshot.Report) {
	w := r.wait
	p.head(w.Local + " → " + w.Remote)
	p.field("kind", r.kind.name)
	p.paragraph(labelWidth, 0, r.kind.words)
	p.field("age", ageWords(w)+" since the peer's FIN")
	p.field("queues", draw.Count(int64(w.RecvQ))+" bytes unread (the FIN counts 1), "+draw.Count(int64(w.SendQ))+" bytes not yet acknowledged")
	if w.LastSentSeconds != nil {
		p.field("last sent", draw.Duration(*w.LastSentSeconds)+" ago")
	}
	p.field("side", string(cmp.Or(w.Side, snapshot.Unknown)))
	p.field("namespace", r.ns.Name)
	p.field("owner", r.owner())
	for i := range r.ns.Owners {
		if o := &r.ns.Owners[i]; w.PID != 0 && o.PID == w.PID {
			p.field("program", o.Exe)
			p.field("cgroup", o.Cgroup)
			p.field("sockets", plural(int(o.CloseWait), "CLOSE_WAIT")+" of "+plural(int(o.Sockets), "socket"))
			if o.Descriptors != nil && o.DescriptorLimit != nil {
				p.field("files", draw.Count(int64(*o.Descriptors))+" open of "+draw.Count(int64(*o.DescriptorLimit))+" allowed")
			}
		}
	}
	p.field("socket", "inode "+strconv.Itoa(int(w.Inode))+", uid "+strconv.Itoa(int(w.UID))+", cookie "+strconv.FormatUint(w.Cookie, 10))
	p.blank()
	p.related(report, func(f *snapshot.Finding) bool { return strings.HasPrefix(f.ID, "close-wait-") })
}
