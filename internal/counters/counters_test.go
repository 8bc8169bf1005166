package counters

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// In the fixtures a counter's value is 1000 (old: 2000), or 3000 (4000) in
// snmp, plus its place in the line, so that a value at a wrong name shows.
func TestReadFixtures(t *testing.T) {
	tests := []struct {
		dir  string
		want Sample
		json string
	}{
		{
			dir: "new", // names as Linux 6.18 prints them
			want: Sample{
				Counters: Set{
					"TW": 18446744073709551615, "TWRecycled": 1011, "TWKilled": 1012, "TCPTimeWaitOverflow": 1077,
					"PAWSActive": 1013, "PAWSEstab": 1014, "PAWSTimewait": 1018, "TCPACKSkippedTimeWait": 1110,
					"ListenOverflows": 1022, "ListenDrops": 1023, "TCPReqQFullDoCookies": 1078, "TCPReqQFullDrop": 1079,
					"SyncookiesSent": 1000, "SyncookiesRecv": 1001, "SyncookiesFailed": 1002,
					"TCPAbortOnData": 1054, "TCPAbortOnClose": 1055, "TCPChallengeACK": 1085, "TCPSYNChallenge": 1086,
					"TCPSynRetrans": 1100, "TCPTimeouts": 1043,
					"ActiveOpens": 3004, "PassiveOpens": 3005, "AttemptFails": 3006, "EstabResets": 3007, "CurrEstab": 3008,
					"InSegs": 3009, "OutSegs": 3010, "RetransSegs": 3011, "OutRsts": 3013,
				},
				Sockstat: Sockstat{InUse: new(35), Orphan: new(3), TimeWait: new(4), Alloc: new(59), Mem: new(22), TCP6InUse: new(17)},
				Conntrack: &Conntrack{
					Entries: new(uint64(300)), Found: new(uint64(5)), Invalid: new(uint64(9)),
					InsertFailed: new(uint64(0x21)), Drop: new(uint64(0x42)), EarlyDrop: new(uint64(0x63)), SearchRestart: new(uint64(0x84)),
				},
			},
			json: `{"inuse":35,"tw":4,"tcp6_inuse":17,"orphan":3,"alloc":59,"mem":22}`,
		},
		{
			dir: "old", // no PAWSTimewait, no TCPACKSkippedTimeWait, no TCPSynRetrans; IPv6 and conntrack not loaded
			want: Sample{
				Counters: Set{
					"TW": 2010, "TWRecycled": 2011, "TWKilled": 2012, "TCPTimeWaitOverflow": 2050,
					"PAWSActive": 2014, "PAWSEstab": 2015,
					"ListenOverflows": 2019, "ListenDrops": 2020, "TCPReqQFullDoCookies": 2051, "TCPReqQFullDrop": 2052,
					"SyncookiesSent": 2000, "SyncookiesRecv": 2001, "SyncookiesFailed": 2002,
					"TCPAbortOnData": 2048, "TCPAbortOnClose": 2049, "TCPChallengeACK": 2054, "TCPSYNChallenge": 2055,
					"TCPTimeouts": 2047,
					"ActiveOpens": 4004, "PassiveOpens": 4005, "AttemptFails": 4006, "EstabResets": 4007, "CurrEstab": 4008,
					"InSegs": 4009, "OutSegs": 4010, "RetransSegs": 4011, "OutRsts": 4013,
				},
				Sockstat: Sockstat{InUse: new(4), Orphan: new(0), TimeWait: new(0), Alloc: new(5), Mem: new(1)},
			},
			json: `{"inuse":4,"tw":0,"orphan":0,"alloc":5,"mem":1}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.dir, func(t *testing.T) {
			got, err := Read(filepath.Join("testdata", tt.dir, "net") + "/")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("sample (-want +got):\n%s", diff)
			}
			b, err := json.Marshal(got.Sockstat)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.json, string(b)); diff != "" {
				t.Errorf("sockstat as JSON (-want +got):\n%s", diff)
			}
		})
	}
}

// Each broken file costs its own values only, and is named.
func TestReadPartial(t *testing.T) {
	tests := []struct {
		file, text, want string // want "" is no error
		broken           func(Sample) bool
	}{
		{"netstat", "", "netstat: no TcpExt line", func(s Sample) bool { return !has(s, "TW") && has(s, "ActiveOpens") }},
		{"netstat", "TcpExt: TW\n", "netstat: the TcpExt names have no line of values below", func(s Sample) bool { return !has(s, "TW") }},
		{"netstat", "TcpExt: TW PAWSActive\nTcpExt: 1\n", "netstat: 2 names, but 1 values", func(s Sample) bool { return !has(s, "TW") }},
		{"netstat", "TcpExt: TW PAWSActive\nTcpExt: 1 \x1b[31m\n", `netstat: PAWSActive: "\x1b[31m": want a counter`, func(s Sample) bool { return !has(s, "TW") }},
		{"snmp", "Tcp: CurrEstab\nTcp: -1\n", `snmp: CurrEstab: "-1": want a counter`, func(s Sample) bool { return has(s, "TW") && !has(s, "CurrEstab") }},
		{"sockstat", "nonsense\n", "sockstat: ", func(s Sample) bool { return s.Sockstat == Sockstat{} && s.Conntrack != nil }},
		{"sockstat", "UDP: inuse 0 mem 0\n", "sockstat: no TCP line", func(s Sample) bool { return s.Sockstat == Sockstat{} }},
		{"sockstat6", "TCP6: inuse x\n", "sockstat6: ", func(s Sample) bool { return s.Sockstat.TCP6InUse == nil && s.Sockstat.TimeWait != nil }},
		{"stat/nf_conntrack", "entries\n1 2\n", "stat/nf_conntrack: ", func(s Sample) bool { return s.Conntrack == nil && has(s, "TW") }},
		{"stat/nf_conntrack", "entries\n", "no line for any CPU", func(s Sample) bool { return s.Conntrack == nil }},
	}
	for _, tt := range tests {
		t.Run(tt.file+" "+tt.want, func(t *testing.T) {
			dir := copyFixture(t)
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			s, err := Read(dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), filepath.Join(dir, tt.file)) {
				t.Errorf("error %v, want …%s", err, tt.want)
			} else if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("unescaped: %q", err)
			}
			if !tt.broken(s) {
				t.Errorf("the wrong values are missing: %+v", s)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		dir := copyFixture(t)
		if err := os.Remove(filepath.Join(dir, "netstat")); err != nil {
			t.Fatal(err)
		}
		if s, err := Read(dir); !errors.Is(err, fs.ErrNotExist) || has(s, "TW") || !has(s, "ActiveOpens") {
			t.Errorf("%v, %v", s.Counters, err)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		for _, dir := range []string{filepath.Join(t.TempDir(), "gone", "net"), t.TempDir()} {
			if s, err := Read(dir); err == nil || len(s.Counters) > 0 {
				t.Errorf("Read(%q) = %v, %v", dir, s, err)
			}
		}
	})
}

func has(s Sample, key string) bool { _, ok := s.Counters[key]; return ok }

func copyFixture(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "net")
	if err := os.CopyFS(dir, os.DirFS("testdata/new/net")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNames(t *testing.T) {
	names := Names()
	if len(names) != 30 || names[0] != "ActiveOpens" {
		t.Errorf("%d names, the first is %s", len(names), names[0])
	}
	for i := 1; i < len(names); i++ {
		if names[i-1] >= names[i] {
			t.Errorf("not sorted, or twice: %s, %s", names[i-1], names[i])
		}
	}
}

// FuzzParse: never a panic, only wanted keys, all or nothing, and what is
// stored comes back when printed as the kernel prints it.
func FuzzParse(f *testing.F) {
	for _, dir := range []string{"old", "new"} {
		for _, file := range []string{"netstat", "snmp"} {
			b, err := os.ReadFile(filepath.Join("testdata", dir, "net", file))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(b))
		}
	}
	f.Add("TcpExt: TW\nTcpExt: 1\n")
	f.Add("TcpExt: TW TW\nTcpExt: 1 2")
	f.Add("TcpExt:\n")
	f.Fuzz(func(t *testing.T, text string) {
		for protocol, names := range map[string][]string{"TcpExt": tcpExtNames(), "Tcp": tcpNames()} {
			got := Set{}
			if err := parse(got, text, protocol, names); err != nil {
				if len(got) > 0 {
					t.Fatalf("an error and values %v", got)
				}
				continue
			}
			keys, values := protocol+":", protocol+":"
			for _, name := range names {
				if n, ok := got[name]; ok {
					b, _ := json.Marshal(n)
					keys, values = keys+" "+name, values+" "+string(b)
				}
			}
			again := Set{}
			if err := parse(again, keys+"\n"+values+"\n", protocol, names); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Fatalf("came back otherwise, or had an unwanted key (-want +got):\n%s", diff)
			}
		}
	})
}
