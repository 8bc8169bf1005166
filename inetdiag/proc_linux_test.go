package inetdiag

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestProcEqualsDump compares both sources on the same table.
func TestProcEqualsDump(t *testing.T) {
	newNamespace(t)
	c := dialTest(t, nil)
	want := scene(t)
	settle(t, c, want)

	type fields struct {
		Seen                   seen
		Timer                  uint8
		RQ, WQ, UID, Inode, In uint32
	}
	read := func(s *Socket) fields {
		f := fields{seenOf(s), s.Timer(), s.RQueue(), s.WQueue(), s.UID(), s.Inode(), 0}
		if s.State() == Listen {
			f.WQ = 0 // the file doesn't tell the backlog
		}
		return f
	}
	dump, proc := map[seen]fields{}, map[seen]fields{}
	expires := map[seen]uint32{}
	for s, err := range c.Sockets(t.Context(), Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		dump[seenOf(s)] = read(s)
		expires[seenOf(s)] = s.Expires()
	}
	var rows []seen
	for s, err := range ProcSockets(t.Context(), "/proc/thread-self/net") {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, seenOf(s))
		proc[seenOf(s)] = read(s)
		if was := int(expires[seenOf(s)]); s.Mini() && (int(s.Expires()) > was+10 || int(s.Expires()) < was-1000) {
			t.Errorf("%s expires in %d ms, in the dump in %d", seenOf(s), s.Expires(), was)
		}
	}
	if diff := cmp.Diff(dump, proc, cmpAddr); diff != "" {
		t.Errorf("/proc shows other sockets (-dump +proc):\n%s", diff)
	}
	listens := func(s seen) bool { return s.State == Listen }
	first := slices.IndexFunc(rows, func(s seen) bool { return !listens(s) })
	if slices.ContainsFunc(rows[first:], listens) {
		t.Error("a listener after another row")
	}
	if len(rows) != len(slices.Collect(maps.Keys(dump))) {
		t.Errorf("%d rows, the dump has %d", len(rows), len(dump))
	}
}
