package web

import (
	"net/http"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// MaxHistory is the most moments that /api/v1/history gives.
const MaxHistory = 1000

// History is the answer of /api/v1/history.
type History struct {
	Schema  string   `json:"schema"` // twwatch.history/v1
	Host    string   `json:"host"`
	Moments []Moment `json:"moments"` // oldest first
}

// A Moment is one of the reports that are kept, summed over its namespaces.
type Moment struct {
	Time            time.Time         `json:"time"`
	IntervalSeconds float64           `json:"interval_seconds"` // 0: a single look
	TookSeconds     float64           `json:"took_seconds"`
	Verdict         snapshot.Severity `json:"verdict"`
	// Info, Warning and Critical count findings.
	Info       int             `json:"info"`
	Warning    int             `json:"warning"`
	Critical   int             `json:"critical"`
	Incomplete int             `json:"incomplete"` // things that could not be seen
	States     snapshot.States `json:"states"`
	// CloseRate is connections per second that ended in TIME_WAIT; nil if no
	// namespace knows its own.
	CloseRate   *float64 `json:"close_rate"`
	BucketsUsed int      `json:"buckets_used"`
	// BucketsRatio is used / limit of the namespace where that is most; nil
	// where no limit is known.
	BucketsRatio *float64 `json:"buckets_ratio"`
	// Tightest is the client flow with the largest share of its ports taken;
	// nil: there is none.
	Tightest *Tightest `json:"tightest"`
}

// Tightest is the flow nearest to having no ports left.
type Tightest struct {
	ID         string  `json:"id"` // of the flow
	Namespace  string  `json:"namespace"`
	Local      string  `json:"local"`
	Remote     string  `json:"remote"`
	Port       uint16  `json:"port"`
	Service    string  `json:"service"`
	Free       int     `json:"free"`  // ports
	Ports      int     `json:"ports"` // range − reserved
	TakenRatio float64 `json:"taken_ratio"`
}

func historyParameters() []parameter {
	return []parameter{
		{name: "namespace", about: "The name of a network namespace to count alone; findings and the verdict stay the host's.", schema: text()},
		{name: "limit", about: "Moments at most, the newest; all that are kept where it is missing.", schema: number(1, MaxHistory)},
	}
}

// history sums up the reports that are kept.
func (s *site) history(r *http.Request, _ string) (any, error) {
	namespace, limit := "", MaxHistory
	err := eachParameter(r.URL.RawQuery, historyParameters(), func(name, value string) (want string) {
		switch name {
		case "namespace":
			namespace, want = nameOf(value)
		case "limit":
			limit, want = numberOf(value, 1, MaxHistory)
		}
		return want
	})
	if err != nil {
		return nil, err
	}
	kept := s.cfg.Hub.Window()
	if len(kept) == 0 {
		return nil, errNotYet
	}
	kept = kept[max(0, len(kept)-limit):]
	answer := &History{Schema: "twwatch.history/v1", Host: kept[len(kept)-1].Host, Moments: make([]Moment, len(kept))}
	for i, frame := range kept {
		answer.Moments[i] = momentOf(frame, namespace)
	}
	return answer, nil
}

func momentOf(frame *snapshot.Report, namespace string) Moment {
	m := Moment{
		Time: frame.Time, IntervalSeconds: frame.IntervalSeconds, TookSeconds: frame.TookSeconds,
		Verdict: frame.Verdict, Incomplete: len(frame.Incomplete),
	}
	for i := range frame.Findings {
		switch frame.Findings[i].Severity {
		case snapshot.Critical:
			m.Critical++
		case snapshot.Warning:
			m.Warning++
		default:
			m.Info++
		}
	}
	for _, n := range frame.Namespaces {
		if namespace != "" && n.Name != namespace {
			continue
		}
		m.States.Add(&n.States)
		m.BucketsUsed += n.TimeWait.BucketsUsed
		if limit := n.TimeWait.BucketsLimit; limit != nil && *limit > 0 {
			m.BucketsRatio = largest(m.BucketsRatio, float64(n.TimeWait.BucketsUsed)/float64(*limit))
		}
		if rate := n.TimeWait.CloseRate; rate != nil {
			sum := *rate + known(m.CloseRate, 0)
			m.CloseRate = &sum
		}
		for i := range n.Flows {
			m.tighten(n, &n.Flows[i])
		}
	}
	return m
}

func largest(v *float64, other float64) *float64 {
	if v == nil || other > *v {
		return &other
	}
	return v
}

// tighten takes f for the tightest flow if it is.
func (m *Moment) tighten(n *snapshot.Namespace, f *snapshot.Flow) {
	share, ok := takenShare(f.Ports)
	if !ok || m.Tightest != nil && m.Tightest.TakenRatio >= share {
		return
	}
	m.Tightest = &Tightest{
		ID: snapshot.FlowID(n, f), Namespace: n.Name, Local: f.Local, Remote: f.Remote, Port: f.Port, Service: f.Service,
		Free: f.Ports.Free, Ports: f.Ports.Range - f.Ports.Reserved, TakenRatio: share,
	}
}
