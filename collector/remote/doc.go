// Package remote reads reports and lists of sockets from another twwatch over
// HTTP.
//
// A source made by [Reports] or [Stream] owns its HTTP client and connections
// while it is ranged over, and [Sockets] for one request; what they return
// belongs to the caller. The other side is not
// trusted: its replies are bounded in size and time, and nothing that it says
// reaches a message without being escaped.
//
// The package keeps nothing between two sources, judges nothing, and asks for
// nothing else.
package remote
