// Package owner finds the process that holds a socket: from the inode that a
// socket dump gives to a process, known by its pid and start time.
//
// It owns a cache of inodes and processes, bounded by its Config, and nothing
// else: no descriptor stays open between two calls, and a Process that was
// handed out is never changed again, so callers may keep it as long as they
// like. It won't decide which sockets matter, won't attribute a TIME_WAIT (which
// has no inode), won't escape what a process writes about itself (its name,
// arguments and cgroup are hostile bytes, escaped where they are printed), and
// won't look at anything but /proc and the cgroup-v2 tree, reading only.
//
// # How it searches
//
// /proc/PID/fd is the only way from a socket to its process, and it costs a
// system call for each descriptor, so reading all of them each time is out of
// the question. The search is bounded per call instead, and goes where success
// is likely: the processes that the caller says own the flow already, those of
// the socket's cgroup, new ones, and then the rest in turn. A whole turn, the
// sweep, may take many calls. Links that lead to a wanted socket are beside the
// bound, since each is read once in the socket's life: so connections that are
// there at one look only are found at it, if their process is likely. An inode
// that a whole sweep didn't find is given up: it is looked for in new processes
// only, and anew after 64 calls.
//
// # When an entry is right
//
// The numbers of socket inodes come from a 32-bit counter that all sockets and
// pipes of the host share (each processor takes 1,024 at a time), so a number
// comes back only after 2³² were made: five days at 10,000 a second. Within that
// time a number means one socket, whatever the network namespace. What can
// change is who holds it: the process may exit while another keeps the socket,
// or close its descriptor after it passed it on. So an entry whose process is
// gone is looked for again if its inode still shows up, and of the others 64 a
// call, in turn, have their descriptor read again.
//
// # What it holds
//
// With the default limits: 2.6 MB for sockets, 1.3 MB for processes and their
// pids, 0.6 MB for scratch and what was learnt of cgroups and executables; and
// what processes that own sockets say of themselves, 0.2 KiB each as they come
// and 2.2 KiB for one that fills each field. Beside 2,000 processes with 24,000
// sockets that is 1.4 MB in all. Reading a link allocates its name, 8 bytes: Go
// has no other way to that system call without unsafe.
//
// # Who is named if several processes hold one socket
//
// After a fork parent and child hold the same socket at the same descriptor, and
// the one that opened it is the parent: the process named is the first found,
// moved up to its farthest ancestor that bears the same name and holds the same
// socket at the same descriptor. A process of another name is no such ancestor:
// what a superuser's socket listener opens and hands to a service is the
// service's, and so PID 1 is searched last.
package owner
