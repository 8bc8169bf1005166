package ledger

import "testing"

func TestFinIsKeptWhileAskedFor(t *testing.T) {
	var l Ledger
	if _, ok := l.Fin(7); ok {
		t.Fatal("an empty ledger knows a FIN")
	}
	want := Fin{Earliest: 50, Latest: 100}
	l.Learn(7, want)
	l.Learn(8, Fin{Earliest: 150, Latest: 200})
	for _, when := range []string{"in the same pass", "in the next", "in the one after that"} {
		if f, ok := l.Fin(7); !ok || f != want {
			t.Fatalf("%s Fin(7) = %v, %v, want %v, true", when, f, ok, want)
		}
		l.EndPass()
	}
	if _, ok := l.Fin(8); ok {
		t.Fatal("a socket that no pass asked for is still known")
	}
}

// What is known of an age only grows: a later ACK takes nothing from it.
func TestLearnOnlyNarrows(t *testing.T) {
	var l Ledger
	for _, step := range []struct{ look, want Fin }{
		{Fin{-10, 100}, Fin{-10, 100}},
		{Fin{-20, 500}, Fin{-10, 100}}, // the peer acknowledged something since
		{Fin{30, 90}, Fin{30, 90}},
		{Fin{95, 120}, Fin{90, 90}}, // contradicts by a tick
	} {
		if got := l.Learn(7, step.look); got != step.want {
			t.Fatalf("after %v: %v, want %v", step.look, got, step.want)
		}
		l.EndPass()
		if got, _ := l.Fin(7); got != step.want {
			t.Fatalf("kept %v, want %v", got, step.want)
		}
	}
}

func TestLedgerIsBounded(t *testing.T) {
	var l Ledger
	for round := range uint64(2) {
		first := round * 3 * MaxFins
		for cookie := first; cookie < first+3*MaxFins; cookie++ {
			if f := l.Learn(cookie, Fin{1, 2}); f != (Fin{1, 2}) {
				t.Fatalf("cookie %d: %v", cookie, f)
			}
		}
		l.Learn(first+5, Fin{1, 1}) // a known one is narrowed even when full
		if f, _ := l.Fin(first + 5); f != (Fin{1, 1}) {
			t.Fatalf("a full ledger keeps %v", f)
		}
		if len(l.seen) != MaxFins || len(l.fins) > MaxFins {
			t.Fatalf("%d and %d sockets, want at most %d", len(l.seen), len(l.fins), MaxFins)
		}
		l.EndPass()
	}
}
