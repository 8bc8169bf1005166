// Package flow groups one namespace's sockets into flows while they stream
// by, in bounded memory.
//
// It owns the table (see [Table]) and the arithmetic that goes from rows to
// numbers: sides, closes per second from the ages of TIME_WAIT sockets,
// ephemeral ports used, blocked, reusable and free. A Table is scratch memory
// that serves one pass at a time and any number of namespaces in turn; what
// has to outlive a pass of a namespace is in its [Memory]. The package reads
// no file and asks the kernel nothing; what it needs to know comes in
// [Config].
//
// Whatever doesn't get a flow of its own is folded into its prefix or into
// the rest, so that every sum still closes.
package flow
