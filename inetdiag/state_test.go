package inetdiag

import (
	"strings"
	"testing"
)

func TestStateNames(t *testing.T) {
	for s := Established; s <= BoundInactive; s++ {
		for _, name := range []string{
			s.String(),
			strings.ToUpper(s.String()),
			strings.ReplaceAll(strings.ToUpper(s.String()), "_", "-"),
			strings.ReplaceAll(s.String(), "_", "-"),
		} {
			if got, err := ParseState(name); got != s || err != nil {
				t.Errorf("ParseState(%q) = %v, %v; want %v", name, got, err, s)
			}
		}
	}
	for name, want := range map[string]State{
		"ESTAB": Established, "estab": Established, "SYN-RECEIVED": SynRecv, "FIN-WAIT-1": FinWait1,
		"FIN-WAIT-2": FinWait2, "UNCONN": Close, "CLOSED": Close, "LISTENING": Listen, " time-wait ": TimeWait,
	} {
		if got, err := ParseState(name); got != want || err != nil {
			t.Errorf("ParseState(%q) = %v, %v; want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"", "wait", "state_3", "time_wait2", "6", "\x1b[31m"} {
		if got, err := ParseState(name); err == nil {
			t.Errorf("ParseState(%q) = %v, want an error", name, got)
		} else if strings.Contains(err.Error(), "\x1b") {
			t.Errorf("the error carries a control character: %q", err)
		}
	}
	for s, want := range map[State]string{0: "state_0", 14: "state_14", 255: "state_255"} {
		if got := s.String(); got != want {
			t.Errorf("State(%d) is %q, want %q", uint8(s), got, want)
		}
	}
}

func TestStates(t *testing.T) {
	for s := range State(255) {
		if got, want := AllStates.Has(s), s >= Established && s <= NewSynRecv; got != want {
			t.Errorf("AllStates.Has(%v) = %t", s, got)
		}
	}
	if one := StatesOf(TimeWait); one != 1<<6 {
		t.Errorf("StatesOf(TimeWait) = %b", one)
	}
	set := StatesOf(TimeWait, CloseWait, 200)
	if set != 1<<6|1<<8 || !set.Has(TimeWait) || set.Has(Listen) {
		t.Errorf("StatesOf(TimeWait, CloseWait, 200) = %b", set)
	}
}
