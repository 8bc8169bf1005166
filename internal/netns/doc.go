// Package netns lists the network namespaces of this kernel, tells them apart,
// enters them, and tells cheaply whether anything moved in one.
//
// A [Watcher] owns one goroutine with a thread of its own and, for each
// namespace listed, one open /proc/sys file; they live until Close. The
// [Namespace] values belong to it: they change only in [Watcher.Refresh], and
// one that is gone is never listed again. The package names no container and no
// pod (it gives the cgroup and the mounts that others name them by), reads no
// socket, and writes nothing anywhere.
//
// # What is found
//
// The namespaces of processes (/proc/PID/ns/net), and those that a mount holds:
// `ip netns`, and what container runtimes mount. Mounts are looked for in the
// mount namespace of this process and in that of PID 1. A namespace that only a
// thread is in, only a descriptor or only a socket, is not found.
//
// A process that joins another namespace long after its start is noticed within
// 8 calls of Refresh, or by the next one once a Visit or Pulse missed it;
// everything else by the next one.
//
// # How namespaces are told apart
//
// The kernel gives the inode number of a dead namespace to the next one at once.
// SO_NETNS_COOKIE (Linux 5.14) is never given twice, but to read it takes a
// visit. One read from an open /proc/sys file tells it too, on older kernels as
// well: that doesn't keep the namespace alive, fails with ENOENT once it is dead,
// and does so before the inode number is given away again, as the kernel frees
// the number last (net_ns_net_exit in net/core/net_namespace.c).
//
// # What keeps a namespace alive
//
// Netlink sockets, descriptors of the namespace and files of /proc/PID/net do
// while they are open, and a thread that is inside. None of them outlasts a call
// here, except the descriptor of the namespace that the Watcher was made in. What
// the function of a visit opens is its caller's to close.
package netns
