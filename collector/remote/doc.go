// Package remote reads reports from another twwatch over HTTP.
//
// A source made by [Reports] owns its HTTP client and connections while it is
// ranged over; the reports belong to the caller. The other side is not
// trusted: its replies are bounded in size and time, and nothing that it says
// reaches a message without being escaped.
//
// The package keeps nothing between two sources, judges nothing, and asks for
// nothing but the report.
package remote
