package ledger

import "testing"

func TestFinIsKeptWhileAskedFor(t *testing.T) {
	var l Ledger
	if _, ok := l.FinAt(7); ok {
		t.Fatal("an empty ledger knows a FIN")
	}
	l.Learn(7, 100)
	l.Learn(8, 200)
	if at, ok := l.FinAt(7); !ok || at != 100 {
		t.Fatalf("in the same pass FinAt(7) = %d, %v, want 100, true", at, ok)
	}
	l.EndPass()
	if at, ok := l.FinAt(7); !ok || at != 100 {
		t.Fatalf("FinAt(7) = %d, %v, want 100, true", at, ok)
	}
	l.EndPass()
	if at, ok := l.FinAt(7); !ok || at != 100 {
		t.Fatalf("after a second pass FinAt(7) = %d, %v, want 100, true", at, ok)
	}
	if _, ok := l.FinAt(8); ok {
		t.Fatal("a socket that no pass asked for is still known")
	}
}
