// Package web serves frames over HTTP: metrics, health, and a JSON API.
//
// A [Handler] owns no data. It shows the hub's newest frame, encoded once for
// any number of readers, and starts no pass; only /api/v1/sockets asks the
// kernel, one request at a time. Off loopback it answers metrics and health
// only, unless authentication is configured or the API was opened on purpose;
// without authentication page and API answer only under names that they know.
// What it is asked is limited and checked; every refusal says why, as JSON.
// TLS and authentication are the server's, not this package's.
package web

//go:generate go test -run=^TestOpenAPIDocument$ -count=1 . -update
