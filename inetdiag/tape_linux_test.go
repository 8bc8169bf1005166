package inetdiag

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestTape records a dump and a lookup and plays them back.
func TestTape(t *testing.T) {
	newNamespace(t)
	var tape bytes.Buffer
	live := dialTest(t, &Config{Tape: &tape})
	settle(t, dialTest(t, nil), scene(t))
	type row struct {
		Row      [rowSize]byte
		FilledAt int64
		Info     Info
		Cgroup   uint64
	}
	read := func(c *Conn) (rows []row, lookups []Info) {
		var ids []ID
		for s, err := range c.Sockets(t.Context(), Query{Info: true}) {
			if err != nil {
				t.Fatal(err)
			}
			info, _ := s.Info()
			cgroup, _ := s.CgroupID()
			rows = append(rows, row{*s.row, s.FilledAt(), info, cgroup})
			if s.State() == CloseWait {
				ids = append(ids, s.ID())
			}
		}
		for _, id := range ids {
			info, err := c.Lookup(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			lookups = append(lookups, info)
		}
		return rows, lookups
	}
	rows, lookups := read(live)
	replayed, infos := read(Replay(&tape))
	if diff := cmp.Diff(rows, replayed); diff != "" || len(rows) == 0 {
		t.Errorf("rows (-live +replayed):\n%s", diff)
	}
	if diff := cmp.Diff(lookups, infos); diff != "" || len(infos) == 0 {
		t.Errorf("lookups (-live +replayed):\n%s", diff)
	}
}

// TestTapeOfLoss: a datagram that met too small a buffer replays as the loss
// that it was.
func TestTapeOfLoss(t *testing.T) {
	newNamespace(t)
	many(t, 400)
	var tape bytes.Buffer
	live := dialTest(t, &Config{Tape: &tape})
	live.buf = live.buf[:512]
	replayed := Replay(&tape)
	replayed.buf = replayed.buf[:512]
	for _, c := range []*Conn{live, replayed} {
		for s, err := range c.Sockets(t.Context(), Query{}) {
			if s != nil || !errors.Is(err, ErrTruncated) {
				t.Errorf("%v and %v, want ErrTruncated", s, err)
			}
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestTapeFails(t *testing.T) {
	newNamespace(t)
	listener(t, "127.0.0.1:80", 1)
	c := dialTest(t, &Config{Tape: brokenWriter{}})
	rows, last := 0, error(nil)
	for _, err := range c.Sockets(t.Context(), Query{}) {
		if last = err; err == nil {
			rows++
		}
	}
	if rows != 1 || !errors.Is(last, unix.ENOSPC) {
		t.Errorf("%d rows, then %v; want one, then ENOSPC", rows, last)
	}
}

var update = flag.Bool("update", false, "record testdata/scene.tape anew")

// TestRecordScene makes what TestRecordedScene reads, with -update.
func TestRecordScene(t *testing.T) {
	if !*update {
		return
	}
	newNamespace(t)
	settle(t, dialTest(t, nil), scene(t))
	sceneBound(t)
	var tape bytes.Buffer
	text := describe(t, dialTest(t, &Config{Tape: &tape}))
	for name, content := range map[string][]byte{"scene.tape": tape.Bytes(), "scene.golden": []byte(text)} {
		if err := os.WriteFile(filepath.Join("testdata", name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
