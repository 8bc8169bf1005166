package web

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Limits of /api/v1/flows.
const (
	DefaultFlows = 100
	MaxFlows     = 1000
)

// Flows is the answer of /api/v1/flows.
type Flows struct {
	Schema string    `json:"schema"` // twwatch.flows/v1
	Host   string    `json:"host"`
	Time   time.Time `json:"time"` // of the report
	Flows  []FlowRow `json:"flows"`
	// Matched is how many flows of the report match; Truncated says that there
	// are more than were asked for.
	Matched   int  `json:"matched"`
	Truncated bool `json:"truncated"`
	// Omitted is how many flows, at least, the report itself leaves out.
	Omitted int `json:"omitted"`
}

// A FlowRow is a flow of a namespace.
type FlowRow struct {
	ID        string         `json:"id"` // for /api/v1/flows/{id}
	Namespace string         `json:"namespace"`
	Flow      *snapshot.Flow `json:"flow"`
}

// OneFlow is the answer of /api/v1/flows/{id}.
type OneFlow struct {
	Schema    string             `json:"schema"` // twwatch.flow/v1
	Host      string             `json:"host"`
	Time      time.Time          `json:"time"` // of the report
	ID        string             `json:"id"`
	Namespace string             `json:"namespace"`
	Flow      *snapshot.Flow     `json:"flow"`
	Findings  []snapshot.Finding `json:"findings"` // about this flow
	// History is this flow in the reports that are kept, oldest first; those
	// that don't list it are missing.
	History []FlowMoment `json:"history"`
}

// A FlowMoment is a flow in one of the reports that are kept.
type FlowMoment struct {
	Time      time.Time       `json:"time"`
	States    snapshot.States `json:"states"`
	CloseRate *float64        `json:"close_rate"` // closes/s; nil: not known
	Free      *int            `json:"free"`       // ports; nil: no client flow
}

type flowQuery struct {
	namespace, service, process string
	side                        snapshot.Side
	remote                      netip.Prefix
	port                        uint16
	sort                        string
	limit                       int
}

func flowSorts() []string {
	return []string{"ports", "time_wait", "close_wait", "established", "closes", "lifetime", "service", "process", "remote"}
}

func flowParameters() []parameter {
	return []parameter{
		{name: "namespace", about: "The name of a network namespace.", schema: text()},
		{name: "side", about: "The end that this host plays.", schema: oneOf(string(snapshot.Client), string(snapshot.Server), string(snapshot.Unknown))},
		{name: "remote", about: "An address or a prefix that the remote end is in.", schema: text()},
		{name: "port", about: "The service's port.", schema: number(1, 65535)},
		{name: "service", about: "The service's name, such as redis.", schema: text()},
		{name: "process", about: "A process's name, or its pid.", schema: text()},
		{name: "sort", about: "By what, worst first: the share of ports taken (where it is missing), sockets in a state, closes per second, or the shortest lifetime; or by a name.", schema: oneOf(flowSorts()...)},
		{name: "limit", about: fmt.Sprintf("Flows at most; %d where it is missing.", DefaultFlows), schema: number(1, MaxFlows)},
	}
}

func parseFlowQuery(raw string) (flowQuery, error) {
	q := flowQuery{sort: "ports", limit: DefaultFlows}
	err := eachParameter(raw, flowParameters(), func(name, value string) (want string) {
		switch name {
		case "namespace":
			q.namespace, want = nameOf(value)
		case "side":
			want = "want client, server or unknown"
			if q.side = snapshot.Side(value); q.side == snapshot.Client || q.side == snapshot.Server || q.side == snapshot.Unknown {
				want = ""
			}
		case "remote":
			q.remote, want = prefixOf(value)
		case "port":
			q.port, want = portOf(value)
		case "service":
			q.service, want = nameOf(value)
		case "process":
			q.process, want = nameOf(value)
		case "sort":
			q.sort, want = choiceOf(value, flowSorts())
		case "limit":
			q.limit, want = numberOf(value, 1, MaxFlows)
		}
		return want
	})
	return q, err
}

func nameOf(value string) (name, want string) {
	if value == "" {
		return "", "want a name"
	}
	return value, ""
}

// flows lists the flows that are asked for.
func (s *site) flows(r *http.Request, _ string) (any, error) {
	q, err := parseFlowQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	frame, err := s.frame()
	if err != nil {
		return nil, err
	}
	answer := &Flows{Schema: "twwatch.flows/v1", Host: frame.Host, Time: frame.Time}
	for _, n := range frame.Namespaces {
		if q.namespace != "" && n.Name != q.namespace {
			continue
		}
		answer.Omitted += n.Omitted.Flows
		for i := range n.Flows {
			if f := &n.Flows[i]; q.match(f) {
				answer.Flows = append(answer.Flows, FlowRow{snapshot.FlowID(n, f), n.Name, f})
			}
		}
	}
	slices.SortStableFunc(answer.Flows, func(a, b FlowRow) int { return q.compare(a.Flow, b.Flow) })
	answer.Matched = len(answer.Flows)
	if answer.Matched > q.limit {
		answer.Flows, answer.Truncated = answer.Flows[:q.limit], true
	}
	return answer, nil
}

func (q *flowQuery) match(f *snapshot.Flow) bool {
	switch {
	case q.side != "" && f.Side != q.side,
		q.port != 0 && f.Port != q.port,
		q.service != "" && f.Service != q.service,
		q.process != "" && !slices.ContainsFunc(f.Processes, func(p snapshot.Process) bool { return isProcess(&p, q.process) }):
		return false
	case !q.remote.IsValid():
		return true
	}
	a, err := netip.ParseAddr(f.Remote)
	if err != nil { // a folded tail: it is in a prefix as a whole or not at all
		p, err := netip.ParsePrefix(f.Remote)
		return err == nil && p.Bits() >= q.remote.Bits() && snapshot.Covers(q.remote, p.Addr())
	}
	return snapshot.Covers(q.remote, a)
}

func isProcess(p *snapshot.Process, name string) bool {
	if p.Comm == name {
		return true
	}
	pid, err := strconv.Atoi(name)
	return err == nil && (p.PID == pid || slices.Contains(p.PIDs, pid))
}

// compare orders flows as asked; what isn't known comes last.
func (q *flowQuery) compare(a, b *snapshot.Flow) int {
	most := func(value func(*snapshot.Flow) float64) int { return cmp.Compare(value(b), value(a)) }
	switch q.sort {
	case "time_wait":
		return cmp.Compare(b.States.TimeWait, a.States.TimeWait)
	case "close_wait":
		return cmp.Compare(b.States.CloseWait, a.States.CloseWait)
	case "established":
		return cmp.Compare(b.States.Established, a.States.Established)
	case "closes":
		return most(func(f *snapshot.Flow) float64 { return known(f.CloseRate, -1) })
	case "lifetime":
		return cmp.Compare(known(a.MeanLifetimeSeconds, math.Inf(1)), known(b.MeanLifetimeSeconds, math.Inf(1)))
	case "service":
		return compareNames(a.Service, b.Service)
	case "process":
		return compareNames(firstProcess(a), firstProcess(b))
	case "remote":
		return cmp.Or(strings.Compare(a.Remote, b.Remote), cmp.Compare(a.Port, b.Port))
	}
	return most(func(f *snapshot.Flow) float64 {
		if share, ok := takenShare(f.Ports); ok {
			return share
		}
		return -1
	})
}

func known(v *float64, otherwise float64) float64 {
	if v == nil || math.IsNaN(*v) {
		return otherwise
	}
	return *v
}

// compareNames puts what has no name last.
func compareNames(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a)
	}
	return strings.Compare(a, b)
}

func firstProcess(f *snapshot.Flow) string {
	if len(f.Processes) == 0 {
		return ""
	}
	return f.Processes[0].Comm
}

// takenShare is the share of the ports that connect() might get which it can't
// get now.
func takenShare(p *snapshot.Ports) (share float64, ok bool) {
	if p == nil || p.Range <= p.Reserved {
		return 0, false
	}
	return 1 - float64(p.Free)/float64(p.Range-p.Reserved), true
}

// flow answers with all that is known of one.
func (s *site) flow(r *http.Request, id string) (any, error) {
	if err := eachParameter(r.URL.RawQuery, nil, nil); err != nil {
		return nil, err
	}
	if len(id) != 16 || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, refusal(http.StatusBadRequest, quote(id)+" is no id of a flow: want the 16 hexadecimal digits that /api/v1/flows gives")
	}
	frame, err := s.frame()
	if err != nil {
		return nil, err
	}
	n, f := findFlow(frame, id)
	if f == nil {
		return nil, refusal(http.StatusNotFound, "the newest report lists no such flow: it has no sockets any more, or is among those left out")
	}
	answer := &OneFlow{Schema: "twwatch.flow/v1", Host: frame.Host, Time: frame.Time, ID: id, Namespace: n.Name, Flow: f}
	for i := range frame.Findings {
		if about(&frame.Findings[i], n, f) {
			answer.Findings = append(answer.Findings, frame.Findings[i])
		}
	}
	for _, kept := range s.cfg.Hub.Window() {
		if _, f := findFlow(kept, id); f != nil {
			m := FlowMoment{Time: kept.Time, States: f.States, CloseRate: f.CloseRate}
			if f.Ports != nil {
				m.Free = &f.Ports.Free
			}
			answer.History = append(answer.History, m)
		}
	}
	return answer, nil
}

func findFlow(frame *snapshot.Report, id string) (*snapshot.Namespace, *snapshot.Flow) {
	for _, n := range frame.Namespaces {
		for i := range n.Flows {
			if f := &n.Flows[i]; snapshot.FlowID(n, f) == id {
				return n, f
			}
		}
	}
	return nil, nil
}

// about reports whether a finding's subject is that flow.
func about(finding *snapshot.Finding, n *snapshot.Namespace, f *snapshot.Flow) bool {
	s := &finding.Subject
	return finding.Namespace == n.Name && s.Port == f.Port && s.Port != 0 &&
		(s.Side == "" || s.Side == f.Side) && (s.Remote == "" || s.Remote == f.Remote) && (s.Local == "" || s.Local == f.Local)
}
