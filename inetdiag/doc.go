// Package inetdiag reads the kernel's table of TCP sockets through
// NETLINK_SOCK_DIAG, one borrowed row at a time.
//
//	conn, err := inetdiag.Dial(nil)
//	…
//	defer conn.Close()
//	for s, err := range conn.Sockets(ctx, inetdiag.Query{}) {
//		if err != nil {
//			return err // rows seen before it are good
//		}
//		count[s.State()]++
//	}
//
// What it owns: the wire format (include/uapi/linux/inet_diag.h), the dump as
// a stream, filters in the kernel's bytecode, the exact request for one
// socket, and recordings of all these. [ProcSockets] is the poorer source for
// hosts where sock_diag cannot be had.
//
// How long values live: a [*Socket] is a view of the receive buffer and is
// valid until the loop's next step; what must outlive it is copied by
// [Socket.ID] or by value. A [Conn] owns one buffer of 32 KiB for its whole
// life and serves one request at a time. A dump costs the same number of
// allocations whether the table holds ten sockets or a million.
//
// A dump is no snapshot: the kernel walks the table in steps of at most 16
// sockets per lock, and sockets that come and go meanwhile may be missed.
// Sockets that it shows twice are dropped, see [Conn.Duplicates].
//
// Order: sockets in LISTEN, then BOUND_INACTIVE where asked for, then all
// others in the order of the kernel's hash table, which is not random: newer
// kernels keep the sockets of one flow side by side.
//
// What it will not do: write anything to the kernel, interpret what it reads,
// log, retry, or keep a socket open in the background.
package inetdiag
