package inetdiag

import (
	"fmt"
	"strings"
)

// State is the state of a TCP socket, numbered as in the kernel's
// include/net/tcp_states.h.
type State uint8

// The kernel's states. NewSynRecv is internal to the kernel, which shows such
// a socket as SynRecv. BoundInactive (Linux 6.8) exists only as a question:
// see [BoundInactive].
const (
	Established State = 1 + iota
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv

	// BoundInactive asks for sockets that are bound to a port and neither
	// listen nor connect (Linux 6.8 or newer; older kernels ignore it). The
	// kernel shows such a row with the state [Close] (7), and no other row
	// of a dump has that state for longer than the instant of its closing.
	BoundInactive
)

var stateNames = [...]string{
	Established:   "established",
	SynSent:       "syn_sent",
	SynRecv:       "syn_recv",
	FinWait1:      "fin_wait1",
	FinWait2:      "fin_wait2",
	TimeWait:      "time_wait",
	Close:         "close",
	CloseWait:     "close_wait",
	LastAck:       "last_ack",
	Listen:        "listen",
	Closing:       "closing",
	NewSynRecv:    "new_syn_recv",
	BoundInactive: "bound_inactive",
}

// String returns the state's name in lower case with underscores, as in
// "time_wait"; a number without a name reads "state_N".
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("state_%d", uint8(s))
}

// ParseState reads a state's name: this package's own ("time_wait"), the
// RFC's ("TIME-WAIT", "FIN-WAIT-1", "SYN-RECEIVED", "CLOSED") or that of ss
// ("ESTAB", "UNCONN"). Case, hyphens and underscores do not matter.
func ParseState(name string) (State, error) {
	fold := func(s string) string {
		return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(strings.TrimSpace(s)))
	}
	folded := fold(name)
	switch folded {
	case "estab":
		return Established, nil
	case "synreceived", "synrcvd":
		return SynRecv, nil
	case "closed", "unconn":
		return Close, nil
	case "listening":
		return Listen, nil
	}
	for s, known := range stateNames {
		if known != "" && fold(known) == folded {
			return State(s), nil
		}
	}
	return 0, fmt.Errorf("unknown TCP state %q: use one of %s", name, strings.Join(stateNames[Established:], ", "))
}

// States is a set of states, bit N for the state N, as the kernel takes it.
type States uint32

// AllStates is every state but [BoundInactive], [Listen] included.
const AllStates States = 1<<(NewSynRecv+1) - 2

// StatesOf returns the set of the states named. States above 31 do not exist
// and are left out.
func StatesOf(states ...State) States {
	var set States
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has tells whether s is in the set.
func (set States) Has(s State) bool { return set>>s&1 != 0 }

// Family is an address family by its Linux number.
type Family uint8

// The two families that carry TCP. An IPv6 socket may well carry IPv4
// (v4-mapped addresses, as at a listener on [::]).
const (
	FamilyIPv4 Family = 2  // AF_INET
	FamilyIPv6 Family = 10 // AF_INET6
)

// String returns "ipv4", "ipv6" or "family_N".
func (f Family) String() string {
	switch f {
	case FamilyIPv4:
		return "ipv4"
	case FamilyIPv6:
		return "ipv6"
	}
	return fmt.Sprintf("family_%d", uint8(f))
}
