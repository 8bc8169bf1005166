package snapshot

// Subtract takes o's counts off s; each must be at least as large in s.
func (s *States) Subtract(o *States) {
	s.Established -= o.Established
	s.SynSent -= o.SynSent
	s.SynRecv -= o.SynRecv
	s.FinWait1 -= o.FinWait1
	s.FinWait2 -= o.FinWait2
	s.TimeWait -= o.TimeWait
	s.Close -= o.Close
	s.CloseWait -= o.CloseWait
	s.LastAck -= o.LastAck
	s.Listen -= o.Listen
	s.Closing -= o.Closing
}

// Add adds o's counts.
func (s *States) Add(o *States) {
	s.Established += o.Established
	s.SynSent += o.SynSent
	s.SynRecv += o.SynRecv
	s.FinWait1 += o.FinWait1
	s.FinWait2 += o.FinWait2
	s.TimeWait += o.TimeWait
	s.Close += o.Close
	s.CloseWait += o.CloseWait
	s.LastAck += o.LastAck
	s.Listen += o.Listen
	s.Closing += o.Closing
}

// Total is the number of sockets in all states.
func (s *States) Total() int {
	return int(s.Established) + int(s.SynSent) + int(s.SynRecv) + int(s.FinWait1) + int(s.FinWait2) +
		int(s.TimeWait) + int(s.Close) + int(s.CloseWait) + int(s.LastAck) + int(s.Listen) + int(s.Closing)
}

// Named yields every state's name, as in the JSON, and its count, in a fixed
// order.
func (s *States) Named(yield func(name string, count uint32) bool) {
	_ = yield("established", s.Established) && yield("syn_sent", s.SynSent) && yield("syn_recv", s.SynRecv) &&
		yield("fin_wait1", s.FinWait1) && yield("fin_wait2", s.FinWait2) && yield("time_wait", s.TimeWait) &&
		yield("close", s.Close) && yield("close_wait", s.CloseWait) && yield("last_ack", s.LastAck) &&
		yield("listen", s.Listen) && yield("closing", s.Closing)
}
