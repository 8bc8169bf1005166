// Package lab makes real TCP sockets in every state, by the single one or by
// the hundred thousand, in network namespaces of its own: for the demo, for
// integration tests and for benchmarks.
//
// It owns what it makes: a [Namespace] holds its threads, descriptors, servers
// and sockets until [Namespace.Close], and nothing of it stays afterwards. All
// sockets are made by plain system calls on threads that live in the
// namespace, so a test says exactly which call made which state.
//
// It never touches the namespace that the process was started in: a Namespace
// is either new or, in a process started by [InPrivateNamespace], that
// process's own. It judges nothing and reads no more of the kernel than tests
// need as an oracle ([Namespace.States], [Namespace.Counter]).
//
// # Which call makes which state
//
// With p from [Namespace.Pair] (a server opened with [Manual]):
//
//	ESTABLISHED       p as it is
//	CLOSE_WAIT        p.Client.Close(): the server end; Recv-Q 1 until it reads
//	                  the EOF (p.Server.Drain), then 0; p.Client.Write before
//	                  it leaves unread bytes
//	  never accepted  Open, then Close, on a Manual server without Accept
//	FIN_WAIT2         p.Client.Shutdown(): a full socket, timer 0
//	FIN_WAIT2 mini    p.Client.Close(): orphaned, while p.Server stays open;
//	                  the kernel may delay the ACK that leads there by 40 ms
//	FIN_WAIT1         p.Server.Deafen(true), p.Client.Shutdown()
//	CLOSING           both deaf, both Shutdown, then p.Client.Deafen(false):
//	                  after the server's retransmission (about 0.2 s)
//	LAST_ACK          p.Client.Shutdown(); once its State is 5 (the kernel may
//	                  delay the ACK): p.Client.Deafen(true), p.Server.Close()
//	TIME_WAIT         p.Client.Close(), p.Server.Close(): at the client
//	SYN_RECV          Open on a server with DeferAccept; the client's end is
//	                  ESTABLISHED
//	SYN_SENT          Open with NoWait on a server whose accept queue is full,
//	                  or into an AddSink device's network
//	bound only        [Namespace.Bind]
//
// Linux only; elsewhere every call answers with [ErrUnsupported].
package lab
