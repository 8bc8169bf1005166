package inetdiag

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	procHead  = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n"
	procHead6 = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

	procListen = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0 1136 1 0000000000000000 100 0 0 10 0                     \n"
	procWait   = "   1: 0500000A:8000 0900000A:18EB 06 00000000:00000000 03:00001194 00000000     0        0 0 3 0000000000000000                                      \n"
	procClose  = "   2: 0100007F:1F90 0200007F:C350 08 0000000A:00000001 01:00000014 00000003  1000        0 43651 2 0000000000000000 20 4 30 10 -1                   \n"

	procListen6 = "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43649 1 0000000000000000 100 0 0 10 0\n"
	procMapped  = "   1: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000200007F:9C40 01 00000000:00000000 02:000005DB 00000000     0        0 43650 1 0000000000000000 20 4 0 10 -1\n"
	procLocal6  = "   2: 00000000000000000000000001000000:0051 00000000000000000000000001000000:9C41 06 00000000:00000000 03:FFFFFFFFFFFFFFFF 00000000     0        0 0 1 0000000000000000\n"
)

// netDir is a directory such as /proc/net.
func netDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

type procRow struct {
	Family                      Family
	State                       State
	Timer                       uint8
	Mini                        bool
	Src, Dst                    string
	Expires, RQ, WQ, UID, Inode uint32
}

func readProc(ctx context.Context, dir string) (rows []procRow, err error) {
	for s, e := range ProcSockets(ctx, dir) {
		if err = e; e != nil {
			continue
		}
		rows = append(rows, procRow{
			s.Family(), s.State(), s.Timer(), s.Mini(), s.Src().String(), s.Dst().String(),
			s.Expires(), s.RQueue(), s.WQueue(), s.UID(), s.Inode(),
		})
	}
	return rows, err
}

func TestProcSockets(t *testing.T) {
	dir := netDir(t, map[string]string{
		"tcp":  procHead + procListen + procWait + procClose,
		"tcp6": procHead6 + procListen6 + procMapped + procLocal6,
	})
	got, err := readProc(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []procRow{
		{FamilyIPv4, Listen, 0, false, "127.0.0.1:8080", "0.0.0.0:0", 0, 2, 0, 1000, 1136},
		{FamilyIPv6, Listen, 0, false, "[::]:80", "[::]:0", 0, 0, 0, 0, 43649},
		{FamilyIPv4, TimeWait, 3, true, "10.0.0.5:32768", "10.0.0.9:6379", 45_000, 0, 0, 0, 0},
		{FamilyIPv4, CloseWait, 1, false, "127.0.0.1:8080", "127.0.0.2:50000", 200, 1, 10, 1000, 43651},
		{FamilyIPv6, Established, 2, false, "127.0.0.1:80", "127.0.0.2:40000", 14_990, 0, 0, 0, 43650},
		{FamilyIPv6, TimeWait, 3, true, "[::1]:81", "[::1]:40001", 4_294_967_290, 0, 0, 0, 0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// The rows have what a dump's rows have, or nothing.
	for s, err := range ProcSockets(t.Context(), dir) {
		if err != nil {
			t.Fatal(err)
		}
		_, info := s.Info()
		_, cgroup := s.CgroupID()
		if info || cgroup || s.Cookie() != 0 || s.Interface() != 0 || s.FilledAt() == 0 {
			t.Errorf("%v: info %t, cgroup %t, cookie %d, interface %d, filled at %d",
				s.Src(), info, cgroup, s.Cookie(), s.Interface(), s.FilledAt())
		}
	}

	// A loop that is left stays left, among the listeners and after them.
	for stop := 1; stop <= len(want); stop++ {
		n := 0
		for _, err := range ProcSockets(t.Context(), dir) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == stop {
				break
			}
		}
	}
}

func TestProcFailures(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  error
		rows  int
	}{
		{"no IPv6", map[string]string{"tcp": procHead + procListen}, nil, 1},
		{"only headings", map[string]string{"tcp": procHead, "tcp6": procHead6}, nil, 0},
		{"empty files", map[string]string{"tcp": "", "tcp6": ""}, nil, 0},
		{"nothing", nil, os.ErrNotExist, 0},
		{"cut off", map[string]string{"tcp": procHead + procListen + procWait[:90]}, ErrMalformed, 1},
		{"cut off in a field", map[string]string{"tcp": procHead + procListen + procWait[:70] + "\n"}, ErrMalformed, 1},
		{"a line without end", map[string]string{"tcp": procHead + procListen + strings.Repeat("0", 2*bufferSize)}, ErrMalformed, 1},
		{"a long line", map[string]string{"tcp": procHead + procListen + strings.Repeat("0", procLine) + "\n"}, ErrMalformed, 1},
		{"an IPv6 row among IPv4", map[string]string{"tcp": procHead + procListen + procMapped}, ErrMalformed, 1},
		{"an IPv4 row among IPv6", map[string]string{"tcp": procHead, "tcp6": procHead6 + procWait}, ErrMalformed, 0},
		{"no number", map[string]string{"tcp": procHead + strings.Replace(procListen, "1F90", "1F9G", 1)}, ErrMalformed, 0},
		{"a port too large", map[string]string{"tcp": procHead + strings.Replace(procListen, "1F90", "11F90", 1)}, ErrMalformed, 0},
		{"an empty field", map[string]string{"tcp": procHead + strings.Replace(procListen, "0A ", "", 1)}, ErrMalformed, 0},
		{"control characters", map[string]string{"tcp": procHead + "\x1b[31m: \x00\n"}, ErrMalformed, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := readProc(t.Context(), netDir(t, tt.files))
			checkError(t, err, tt.want)
			if len(rows) != tt.rows {
				t.Errorf("%d rows, want %d", len(rows), tt.rows)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00") {
				t.Errorf("the error carries control characters: %q", err)
			}
		})
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := readProc(ctx, netDir(t, map[string]string{"tcp": procHead + procListen}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestProcAllocations(t *testing.T) {
	allocs := func(n int) float64 {
		dir := netDir(t, map[string]string{"tcp": procHead + procListen + strings.Repeat(procWait, n)})
		return testing.AllocsPerRun(10, func() {
			for _, err := range ProcSockets(t.Context(), dir) {
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if few, many := allocs(10), allocs(10_000); few != many {
		t.Errorf("10 sockets cost %v allocations, 10,000 cost %v", few, many)
	}
}
