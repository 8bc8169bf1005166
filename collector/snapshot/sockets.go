package snapshot

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SocketList is an answer to a [SocketQuery], from whatever source.
type SocketList struct {
	Sockets []Socket `json:"sockets"`
	// Truncated says that more sockets match than were asked for.
	Truncated bool `json:"truncated"`
	// Lost is what this list can't tell, and why; "" where nothing is lost.
	Lost string `json:"lost,omitempty"`
	// Sample is set where the sockets are of a sample in a recording.
	Sample *SocketSample `json:"sample,omitempty"`
}

// SocketSample says what a list from a recording was chosen from.
type SocketSample struct {
	Time     time.Time `json:"time"` // of the report
	Host     string    `json:"host"`
	Redacted bool      `json:"redacted,omitempty"`
	Sockets  int       `json:"sockets"` // in the sample, before any filter
	Of       int       `json:"of"`      // sockets with a remote end that the host had
}

// SocketQuery says which sockets are asked for. Its fields narrow the answer
// together; its zero value asks for all.
//
// Older asks for every socket that may be so old: where the age of a CLOSE_WAIT
// is known only within bounds, the upper one counts, so that none is hidden. A
// socket of whose age nothing is known is not asked for.
type SocketQuery struct {
	States []string      // names as in States: "time_wait"; empty: all
	Remote netip.Prefix  // the remote address is in it; not valid: any
	Port   uint16        // the local or the remote port; 0: any
	Older  time.Duration // age at least this, as far as is known: see below; 0: any
	Limit  int           // rows at most; 0: as many as the source gives
	// Process is the name or the pid of the process that holds the socket; "":
	// any, or none. The kernel cuts names to 15 bytes, so a longer one asks for
	// what is left of it.
	Process string
}

// A QueryError is a question that has no answer.
type QueryError struct {
	Field  string // of the query, in lower case
	Reason string
}

// Error is one line, safe to print.
func (e *QueryError) Error() string { return e.Field + ": " + oneLine(e.Reason) }

// agedStates are the states whose age a kernel tells.
func agedStates() []string { return []string{"time_wait", "close_wait"} }

// Check returns a [*QueryError] for a query that can't be answered, so that
// nothing is taken for "there are none".
func (q *SocketQuery) Check() error {
	var known []string
	for name := range new(States).Named {
		known = append(known, name)
	}
	aged := len(q.States) == 0
	for _, name := range q.States {
		if !slices.Contains(known, name) {
			return &QueryError{"state", "unknown state " + quote(name) + ": want one or more of " + strings.Join(known, ", ")}
		}
		aged = aged || slices.Contains(agedStates(), name)
	}
	switch {
	case q.Older > 0 && !aged:
		return &QueryError{"older", "only " + strings.Join(agedStates(), " and ") + " sockets have an age that can be known"}
	case q.Older < 0:
		return &QueryError{"older", "want a duration that isn't negative"}
	case q.Process == "0":
		return &QueryError{"process", "want a name or a pid, which is 1 at least"}
	case q.Limit < 0:
		return &QueryError{"limit", "want a number that isn't negative"}
	}
	return nil
}

// Match reports whether s is asked for, as a kernel's filter would; it doesn't
// look at Limit.
func (q *SocketQuery) Match(s *Socket) bool {
	if len(q.States) > 0 && !slices.Contains(q.States, s.State) {
		return false
	}
	if q.Older > 0 && !s.mayBe(q.Older) || !q.MatchProcess(s.PID, s.Comm) {
		return false
	}
	if !q.Remote.IsValid() && q.Port == 0 {
		return true
	}
	local, _ := netip.ParseAddrPort(s.Local)
	remote, err := netip.ParseAddrPort(s.Remote)
	if q.Remote.IsValid() && (err != nil || !Covers(q.Remote, remote.Addr())) {
		return false
	}
	return q.Port == 0 || q.Port == local.Port() || q.Port == remote.Port()
}

// MatchProcess reports whether sockets of a process are asked for; a pid of 0
// is no process.
func (q *SocketQuery) MatchProcess(pid int, comm string) bool {
	const longest = 15 // TASK_COMM_LEN − 1, include/linux/sched.h
	switch {
	case q.Process == "":
		return true
	case pid == 0:
		return false
	}
	return comm == q.Process || len(q.Process) > longest && comm == q.Process[:longest] || strconv.Itoa(pid) == q.Process
}

// mayBe reports whether the socket's age may be at least d.
func (s *Socket) mayBe(d time.Duration) bool {
	switch {
	case s.AgeSeconds == nil:
		return false
	case s.AgeAtMostSeconds != nil:
		return *s.AgeAtMostSeconds >= d.Seconds()
	}
	return s.AgeAtLeast || *s.AgeSeconds >= d.Seconds()
}

// Covers reports whether an address is in a prefix as the kernel's filters
// see it: zones don't count, and a v4-mapped address or prefix is IPv4.
func Covers(p netip.Prefix, a netip.Addr) bool {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Contains(a.Unmap().WithZone(""))
}

// Select returns those of sockets that the query asks for, at most Limit;
// truncated says that there are more.
func (q *SocketQuery) Select(sockets []Socket) (selected []Socket, truncated bool) {
	selected = []Socket{}
	for i := range sockets {
		if !q.Match(&sockets[i]) {
			continue
		}
		if q.Limit > 0 && len(selected) == q.Limit {
			return selected, true
		}
		selected = append(selected, sockets[i])
	}
	return selected, false
}

// SortSockets brings sockets into the order of a report's sample: by remote
// end, local end and state, as text.
func SortSockets(sockets []Socket) {
	slices.SortFunc(sockets, func(a, b Socket) int {
		return cmp.Or(strings.Compare(a.Remote, b.Remote), strings.Compare(a.Local, b.Local),
			strings.Compare(a.State, b.State), cmp.Compare(a.Cookie, b.Cookie))
	})
}

// EncodeSockets writes a list as [EncodeIndent] writes a report. Its length is
// the caller's to bound, to at most some 100,000.
func EncodeSockets(w io.Writer, list *SocketList) error {
	e := encoder{layouts: layouts{}, indent: true, unbounded: true, out: make([]byte, 0, 4<<10+320*len(list.Sockets))}
	if err := e.value(reflect.ValueOf(list).Elem(), ""); err != nil {
		return fmt.Errorf("snapshot: encode: %w", err)
	}
	_, err := w.Write(append(e.out, '\n'))
	return err
}

// DecodeSockets reads a list of at most [MaxSampledSockets] sockets. The error
// is a [*NotSocketsError], or an [*InvalidError] for a list that is damaged or
// out of bounds; each is one line that may be printed.
func DecodeSockets(data []byte) (*SocketList, error) {
	invalid := func(err error) error {
		if e, ok := errors.AsType[*InvalidError](err); ok {
			e.list = true
			return e
		}
		return &InvalidError{Err: err, list: true}
	}
	if len(data) > MaxEncoded {
		return nil, invalid(errors.New("it is larger than 16 MiB"))
	}
	l, list := layouts{}, new(SocketList)
	err := countRows(data, reflect.TypeFor[SocketList](), l)
	if err == nil {
		err = json.Unmarshal(data, list)
	}
	switch {
	case err != nil && bytes.Contains(data[:min(len(data), 64)], []byte(`"sockets"`)):
		return nil, invalid(err)
	case err != nil || list.Sockets == nil:
		return nil, &NotSocketsError{Start: start(data)}
	}
	c := checker{layouts: l}
	if err := c.value(reflect.ValueOf(list).Elem(), ""); err != nil {
		return nil, invalid(err)
	}
	return list, nil
}

// A NotSocketsError means that the data are no list of sockets at all.
type NotSocketsError struct {
	Start string // the first bytes, as they were; nothing if there were none
}

// Error is one line, safe to print.
func (e *NotSocketsError) Error() string {
	if e.Start == "" {
		return "no list of sockets: it is empty"
	}
	return "no list of sockets: it starts with " + quote(e.Start)
}
