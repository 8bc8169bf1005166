package web

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Limits of /api/v1/findings.
const (
	DefaultFindings = 100
	MaxFindings     = 1000
)

// Findings is the answer of /api/v1/findings.
type Findings struct {
	Schema    string             `json:"schema"` // twwatch.findings/v1
	Host      string             `json:"host"`
	Time      time.Time          `json:"time"` // of the report
	Verdict   snapshot.Severity  `json:"verdict"`
	Findings  []snapshot.Finding `json:"findings"` // worst first
	Matched   int                `json:"matched"`
	Truncated bool               `json:"truncated"` // more match than were asked for
	// NotJudged are the rules that lacked their evidence.
	NotJudged []string `json:"not_judged"`
}

func severities() []string {
	return []string{string(snapshot.Info), string(snapshot.Warning), string(snapshot.Critical)}
}

func findingParameters() []parameter {
	return []parameter{
		{name: "severity", about: "The least severity to list.", schema: oneOf(severities()...)},
		{name: "id", about: "The name of a rule, such as ephemeral-ports-exhausted.", schema: text()},
		{name: "namespace", about: "The name of a network namespace.", schema: text()},
		{name: "limit", about: fmt.Sprintf("Findings at most; %d where it is missing.", DefaultFindings), schema: number(1, MaxFindings)},
	}
}

// findings lists the findings that are asked for.
func (s *site) findings(r *http.Request, _ string) (any, error) {
	var least, id, namespace string
	limit := DefaultFindings
	err := eachParameter(r.URL.RawQuery, findingParameters(), func(name, value string) (want string) {
		switch name {
		case "severity":
			least, want = choiceOf(value, severities())
		case "id":
			id, want = nameOf(value)
		case "namespace":
			namespace, want = nameOf(value)
		case "limit":
			limit, want = numberOf(value, 1, MaxFindings)
		}
		return want
	})
	if err != nil {
		return nil, err
	}
	frame, err := s.frame()
	if err != nil {
		return nil, err
	}
	answer := &Findings{
		Schema: "twwatch.findings/v1", Host: frame.Host, Time: frame.Time, Verdict: frame.Verdict, NotJudged: frame.NotJudged,
	}
	for _, f := range frame.Findings {
		if severity(f.Severity) >= severity(snapshot.Severity(least)) && (id == "" || f.ID == id) && (namespace == "" || f.Namespace == namespace) {
			answer.Findings = append(answer.Findings, f)
		}
	}
	slices.SortStableFunc(answer.Findings, func(a, b snapshot.Finding) int {
		return cmp.Compare(severity(b.Severity), severity(a.Severity))
	})
	answer.Matched = len(answer.Findings)
	if answer.Matched > limit {
		answer.Findings, answer.Truncated = answer.Findings[:limit], true
	}
	return answer, nil
}

// severity is a number for comparing; of nothing it is the lowest.
func severity(s snapshot.Severity) int { return slices.Index(severities(), string(s)) }
