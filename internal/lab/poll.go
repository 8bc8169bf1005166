package lab

import (
	"fmt"
	"time"
)

// TB is the part of testing.TB used here: the package stays free of testing,
// since the demo links it.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Eventually calls check until it returns nil, waiting between calls at first
// 1 ms, then longer, at most 50 ms. When the deadline has passed it fails the
// test with the last error.
func Eventually(t TB, deadline time.Duration, check func() error) {
	t.Helper()
	if err := poll(deadline, check); err != nil {
		t.Fatalf("not within %v: %v", deadline, err)
	}
}

// poll is Eventually without a test; it returns the last error.
func poll(deadline time.Duration, check func() error) error {
	const longest = 50 * time.Millisecond
	end := time.Now().Add(deadline)
	wait := time.Millisecond
	for {
		err := check()
		if err == nil {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("gave up: %w", err)
		}
		timer := time.NewTimer(min(wait, left))
		<-timer.C
		wait = min(wait*3/2, longest)
	}
}
