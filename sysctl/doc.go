// Package sysctl reads the kernel settings that limit TCP connections: the
// ephemeral port range, the reserved ports, tcp_max_tw_buckets, tcp_tw_reuse
// and their kin, and the conntrack timeouts.
//
// It owns the open /proc/sys files of a network namespace ([Files]) and the
// parsing of what they say. A [Limits] value is a copy that belongs to the
// caller and stays valid for ever; a Files lives until Close, and outlives its
// namespace only as a handle that answers [ErrGone].
//
// Almost every setting here is per network namespace, and a container does not
// inherit its host's values. /proc/sys/net shows the values of the namespace
// of the thread that opens the file (/proc/PID/root/proc/sys does not help: it
// shows the reader's own), so [Open] is to be called on a thread that is in the
// namespace; what it opened stays bound to it.
//
// A setting that the kernel lacks is nil, never 0.
//
// The package never writes a setting, never enters a namespace and does not
// judge a value.
package sysctl
