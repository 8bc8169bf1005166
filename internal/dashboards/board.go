package dashboards

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/internal/advice"
)

// schemaVersion is of Grafana 10.0: later versions bring it up to date as they
// read it.
const schemaVersion = 38

// width is how many columns Grafana's grid has.
const width = 24

// project is where the documents are.
const project = "https://github.com/twwatch/twwatch/blob/main/"

// A board is a dashboard.
type board struct {
	uid, title, description string
	from                    string // how far back it shows at first: "now-1h"
	step                    string // least time between two points: "1m"; "": the data source's
	variables               []variable
	links                   []link // to other dashboards
	annotations             []annotation
	sections                []section
	// explain leads to what explains a finding or topic.
	explain func(id string) []link
}

// A section is a row of the dashboard, with a headline.
type section struct {
	title  string
	panels []panel
}

// A panel answers one question.
type panel struct {
	title       string
	description string
	kind        kind
	unit        string // Grafana's name of it
	// explain is what twwatch explain has to say about it; where that has
	// nothing, about is a document of this project.
	explain, about string
	queries        []query
	w, h           int // in columns and rows of the grid; 0: 8 and 8

	lines    []step // thresholds, ascending; drawn as lines where there is time
	stack    bool
	max      *float64
	mappings []valueText
	columns  []column // of a table, in this order
	rowLink  []link   // of a table's rows, or of a series
}

type kind string

const (
	stat       kind = "stat"
	timeseries kind = "timeseries"
	table      kind = "table"
)

// A query is an expression and how its series are called.
type query struct {
	expr, legend string
	line         string // colour of a dashed line: not data, but what they are compared with
}

type step struct {
	color string
	value float64
}

type valueText struct {
	value       string
	text, color string
}

// A column of a table: the field that Grafana has, what it is called, and the
// unit if it isn't the panel's. A field without a title is left out.
type column struct {
	field, title, unit string
	verdict            bool // shown as a severity, in its colour
	share              bool // in the colours of the panel's lines
	first              bool // rows come by this one, the greatest first
	link               []link
}

type variable struct {
	name, label, query string // query is for label_values; of a datasource its type
	multi              bool
}

type annotation struct{ name, expr, text string }

// severities are twwatch_finding's values.
func severities() []valueText {
	return []valueText{
		{"0", "healthy", "green"},
		{"1", "info", "blue"},
		{"2", "warning", "orange"},
		{"3", "critical", "red"},
	}
}

// explainOnHost leads to the page that the dashboard's host serves, and to the
// documents, since off loopback the host serves it only if it is told to.
func explainOnHost(id string) []link {
	return append([]link{{"Explain: " + id, "http://${instance}/explain/" + id, true}}, explainOnline(id)...)
}

// explainOnline leads to the documents.
func explainOnline(id string) []link {
	document := "docs/tcp.md"
	if strings.HasPrefix(id, "$") || slices.Contains(advice.Findings(), id) {
		document = "docs/advice.md"
	}
	return []link{{"Explain: " + id + " (documents)", project + document + "#" + id, true}}
}

// encode writes the dashboard as Grafana reads it.
func (b board) encode() []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(b.model()); err != nil {
		panic(err) // plain values; a test would see it first
	}
	return out.Bytes()
}
