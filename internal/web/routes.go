package web

import "net/http"

// idPart stands in a route for whatever comes after the last slash.
const idPart = "{id}"

// A route is what answers one path, or all that differ in their last part.
type route struct {
	path       string
	about      string
	id         string // what {id} is
	parameters []parameter
	kind       string // of the answer: its Content-Type
	schema     string // of a JSON answer: the Go type's name
	statuses   []int  // of refusals, but 403, 405, 414 and 431, that every path has
	serve      func(s *site, w http.ResponseWriter, r *http.Request, id string)
	// make makes the answer of a path whose serve is answer.
	make func(s *site, r *http.Request, id string) (any, error)
}

// Content-Types of answers.
const (
	asJSON  = "application/json"
	asHTML  = "text/html; charset=utf-8"
	asPlain = "text/plain; charset=utf-8"
	asSSE   = "text/event-stream"
)

// routes are all paths. The OpenAPI document is made of the same table.
func routes() []route {
	bad, missing, early, busy := http.StatusBadRequest, http.StatusNotFound, http.StatusServiceUnavailable, http.StatusTooManyRequests
	return []route{
		{
			path: "/api/v1/report", about: "The newest report: one pass over every namespace, and its findings. The same object is a line of a recording and the output of check --output=json.",
			kind: asJSON, schema: "Report", statuses: []int{bad, early}, serve: (*site).report,
		},
		{
			path: "/api/v1/stream", about: "Reports as they are made, as server-sent events. Each event of the type report holds the bytes of /api/v1/report. An event of the type beat comes every ten seconds and tells how old the newest report is; the type end says why the stream ends. Last-Event-ID is ignored: a stream begins with the newest report.",
			kind: asSSE, statuses: []int{bad, early}, serve: (*site).stream,
		},
		{
			path: "/api/v1/flows", about: "The flows of the newest report, filtered and sorted.",
			parameters: flowParameters(), kind: asJSON, schema: "Flows", statuses: []int{bad, early}, serve: (*site).answer, make: (*site).flows,
		},
		{
			path: "/api/v1/flows/" + idPart, id: "An id that /api/v1/flows gives.",
			about: "One flow, the findings about it, and what it was in the reports that are kept.",
			kind:  asJSON, schema: "OneFlow", statuses: []int{bad, missing, early}, serve: (*site).answer, make: (*site).flow,
		},
		{
			path: "/api/v1/findings", about: "The findings of the newest report, worst first.",
			parameters: findingParameters(), kind: asJSON, schema: "Findings", statuses: []int{bad, early}, serve: (*site).answer, make: (*site).findings,
		},
		{
			path: "/api/v1/sockets", about: "Live sockets, asked of the kernel: one request at a time is answered.",
			parameters: socketParameters(), kind: asJSON, schema: "SocketList", statuses: []int{bad, missing, busy, http.StatusInternalServerError, http.StatusGatewayTimeout},
			serve: func(s *site, w http.ResponseWriter, r *http.Request, _ string) { s.sockets.serve(w, r) },
		},
		{
			path: "/api/v1/history", about: "The reports that are kept, each as a few numbers, oldest first.",
			parameters: historyParameters(), kind: asJSON, schema: "History", statuses: []int{bad, early}, serve: (*site).answer, make: (*site).history,
		},
		{
			path: "/api/v1/explain", about: "Everything that can be explained.",
			kind: asJSON, schema: "Explained", statuses: []int{bad, missing, early}, serve: (*site).answer, make: (*site).explainAll,
		},
		{
			path: "/api/v1/explain/" + idPart, id: "The id of a finding, remedy, topic, service or runtime, or kind:id where several things have one name.",
			about:      "What a finding, a remedy, a TCP state, a service or a program is, with what it concerns counted on this host.",
			parameters: explainParameters(),
			kind:       asJSON, schema: "Explained", statuses: []int{bad, missing}, serve: (*site).explainOne,
		},
		{
			path: "/api/v1/openapi.json", about: "This document.",
			kind: asJSON, statuses: []int{bad}, serve: (*site).openAPI,
		},
		{
			path: "/metrics", about: "Prometheus metrics of the newest report.", kind: "text/plain", statuses: []int{early},
			serve: func(s *site, w http.ResponseWriter, r *http.Request, _ string) { s.metrics.ServeHTTP(w, r) },
		},
		{
			path: "/-/healthy", about: "200 while passes go on.", kind: asPlain, statuses: []int{early},
			serve: func(s *site, w http.ResponseWriter, r *http.Request, _ string) { s.healthy(w, r) },
		},
		{
			path: "/-/ready", about: "200 once the first pass has ended.", kind: asPlain, statuses: []int{early},
			serve: func(s *site, w http.ResponseWriter, r *http.Request, _ string) { s.ready(w, r) },
		},
		{path: "/", about: "The page: all of this, live, for people.", kind: asHTML, serve: (*site).page},
		{path: "/assets/" + idPart, id: "A file of the page.", about: "What the page is made of.", kind: "text/javascript; charset=utf-8", statuses: []int{missing}, serve: (*site).asset},
		{path: "/explain", about: "Everything that can be explained, for people.", kind: asHTML, statuses: []int{missing}, serve: (*site).explainIndex},
		{
			path: "/explain/" + idPart, id: "As in /api/v1/explain/{id}.",
			about: "An explanation for people. An alert's explain_url leads here. Refusals are pages where Accept asks for them, else JSON.", kind: asHTML, statuses: []int{bad, missing}, serve: (*site).explainPage,
		},
	}
}
