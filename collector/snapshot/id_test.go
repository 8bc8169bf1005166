package snapshot

import "testing"

// The page computes the same IDs: these are its, too.
func TestFlowID(t *testing.T) {
	for _, c := range []struct {
		n    Namespace
		f    Flow
		want string
	}{
		{Namespace{Name: "host", Inode: 4026531840}, Flow{Side: Client, Local: "10.0.0.5", Remote: "10.0.0.9", Port: 6379}, "350915d50f8a7128"},
		{Namespace{Name: "hö\u202e", Inode: 1}, Flow{Side: Server, Device: "e", Local: "::1", Remote: "10.0.0.9", Port: 1}, "50db4ee8980ee449"},
	} {
		if got := FlowID(&c.n, &c.f); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.f.Remote, got, c.want)
		}
	}
}
