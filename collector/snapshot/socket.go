package snapshot

// Socket is one socket of a list of 4-tuples, or of a report's sample of them.
type Socket struct {
	State  string `json:"state"`            // as in States: "time_wait"
	Local  string `json:"local"`            // address:port
	Remote string `json:"remote"`           // address:port; empty for a listening or merely bound socket
	Device string `json:"device,omitempty"` // bound or link-local device
	// AgeSeconds is the time in TIME_WAIT, or since the peer's FIN in
	// CLOSE_WAIT; nil: unknown, as for every other state. A CLOSE_WAIT may be
	// older where AgeAtLeast is true, but not than AgeAtMostSeconds: see
	// [CloseWait].
	AgeSeconds       *float64 `json:"age_seconds"`
	AgeAtLeast       bool     `json:"age_at_least,omitempty"`
	AgeAtMostSeconds *float64 `json:"age_at_most_seconds,omitempty"`
	// Timer is what the kernel waits for: retransmit, keepalive, time_wait,
	// probe0; empty for nothing. TimerSeconds is until then.
	Timer        string   `json:"timer,omitempty"`
	TimerSeconds *float64 `json:"timer_seconds,omitempty"`
	RecvQ        uint32   `json:"recv_q"` // bytes; for a listener connections that wait for accept()
	SendQ        uint32   `json:"send_q"` // bytes; for a listener its backlog
	UID          *uint32  `json:"uid"`    // nil: a mini-socket, which has no owner any more
	Inode        uint32   `json:"inode"`  // 0: no process holds it
	Cookie       uint64   `json:"cookie"`
	PID          int      `json:"pid,omitempty"`  // of the process that holds it; 0: unknown
	Comm         string   `json:"comm,omitempty"` // of that process
}
