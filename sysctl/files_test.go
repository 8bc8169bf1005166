package sysctl

import (
	"encoding/json"
	"errors"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeRoot writes files below a new proc/sys.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func read(t *testing.T, root string) (Limits, error) {
	t.Helper()
	files, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	return files.Read()
}

// Every field has its file, and its JSON key is the file's name.
func TestSettingsCoverLimits(t *testing.T) {
	var l Limits
	keys := map[any]string{}
	v := reflect.ValueOf(&l).Elem()
	for i := range v.NumField() {
		key, ok := strings.CutSuffix(v.Type().Field(i).Tag.Get("json"), ",omitempty")
		if !ok || v.Field(i).Kind() != reflect.Pointer {
			t.Errorf("%s is no pointer with omitempty", v.Type().Field(i).Name)
		}
		keys[v.Field(i).Addr().Interface()] = key
	}
	for _, s := range settings() {
		var field any
		switch {
		case s.number != nil:
			field = s.number(&l)
		case s.ports != nil:
			field = s.ports(&l)
		default:
			field = s.set(&l)
		}
		if keys[field] != path.Base(s.name) {
			t.Errorf("%s fills the field of %q", s.name, keys[field])
		}
		delete(keys, field)
	}
	for _, key := range keys {
		t.Errorf("no file fills %s", key)
	}
}

func TestReadFakes(t *testing.T) {
	tests := []struct {
		name, want string
		files      map[string]string
	}{
		{
			name: "empty reserved ports, zeros",
			files: map[string]string{
				"net/ipv4/ip_local_port_range":     "32768\t60999\n",
				"net/ipv4/ip_local_reserved_ports": "\n",
				"net/ipv4/tcp_tw_reuse":            "0\n",
				"net/core/somaxconn":               "4096\n",
			},
			want: `{"ip_local_port_range":[32768,60999],"ip_local_reserved_ports":"","tcp_tw_reuse":0,"somaxconn":4096}`,
		},
		{
			name: "an old kernel",
			files: map[string]string{
				"net/ipv4/tcp_max_tw_buckets": "65536\n",
				"net/ipv4/tcp_tw_recycle":     "1\n",
			},
			want: `{"tcp_max_tw_buckets":65536,"tcp_tw_recycle":1}`,
		},
		{
			name: "Alibaba's, with conntrack",
			files: map[string]string{
				"net/ipv4/tcp_tw_timeout":                            "15\n",
				"net/ipv4/ip_local_reserved_ports":                   "8080,9148-9150\n",
				"net/netfilter/nf_conntrack_tcp_timeout_time_wait":   "120\n",
				"net/netfilter/nf_conntrack_tcp_timeout_established": "432000\n",
			},
			want: `{"ip_local_reserved_ports":"8080,9148-9150","tcp_tw_timeout":15,` +
				`"nf_conntrack_tcp_timeout_established":432000,"nf_conntrack_tcp_timeout_time_wait":120}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limits, err := read(t, fakeRoot(t, tt.files))
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(limits)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(b)); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			var back Limits
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(limits, back); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

// A bad value costs its own field only, and is named.
func TestReadMalformed(t *testing.T) {
	root := fakeRoot(t, map[string]string{
		"net/ipv4/tcp_max_tw_buckets":      "many\x1b[31m\u202e\n",
		"net/ipv4/ip_local_port_range":     "5 1\n",
		"net/ipv4/ip_local_reserved_ports": "1,x\n",
		"net/ipv4/tcp_fin_timeout":         "\n",
		"net/ipv4/tcp_tw_reuse":            "2\n",
	})
	if err := os.MkdirAll(filepath.Join(root, "net/ipv4/tcp_timestamps"), 0o755); err != nil {
		t.Fatal(err) // a directory opens, and cannot be read
	}
	limits, err := read(t, root)
	two := 2
	if diff := cmp.Diff(Limits{TCPTWReuse: &two}, limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	if err == nil {
		t.Fatal("no error")
	}
	if e := (*Error)(nil); !errors.As(err, &e) || e.Path == "" {
		t.Errorf("no *Error in %v", err)
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{
		`tcp_max_tw_buckets: "many\x1b[31m\u202e\n": want one integer`,
		`ip_local_port_range: "5 1\n": the lowest port is above the highest`,
		`ip_local_reserved_ports: "1,x\n": "x": want a port from 0 to 65535, or a range like 8000-8010`,
		`tcp_timestamps: is a directory`,
		`tcp_fin_timeout: "\n": want one integer`,
	} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) || !strings.HasPrefix(lines[i], "sysctl: "+root) {
			t.Errorf("line %d of the error is not …%s:\n%v", i, want, err)
		}
	}
	if len(lines) != 5 {
		t.Errorf("%d lines of error, want 5", len(lines))
	}
}

func TestOpenNothing(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is /proc mounted?") {
		t.Errorf("Open of an empty root: %v", err)
	}
}

func TestReadAfterClose(t *testing.T) {
	files, err := Open(fakeRoot(t, map[string]string{"net/core/somaxconn": "1\n"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(files.Close(), files.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Read(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
}

// The longest list that the kernel prints is read whole; the Limits of one
// Read do not change with the next.
func TestReadLongAndAgain(t *testing.T) {
	var long []string
	for p := 0; p < 65534; p += 3 {
		long = append(long, PortRange{uint16(p), uint16(p + 1)}.String())
	}
	root := fakeRoot(t, map[string]string{
		"net/ipv4/ip_local_reserved_ports": strings.Join(long, ",") + "\n",
		"net/core/somaxconn":               "1\n",
		"net/ipv4/tcp_fin_timeout":         "60\n",
	})
	files, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	first, err := files.Read()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := first.IPLocalReservedPorts.Count(), 2*len(long); got != want {
		t.Errorf("%d reserved ports, want %d", got, want)
	}
	if err := os.WriteFile(filepath.Join(root, "net/core/somaxconn"), []byte("2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := files.Read()
	if err != nil {
		t.Fatal(err)
	}
	if *first.Somaxconn != 1 || *second.Somaxconn != 2 || *second.TCPFinTimeout != 60 {
		t.Errorf("somaxconn %d then %d, want 1 then 2", *first.Somaxconn, *second.Somaxconn)
	}

	tooLong := strings.Repeat("1", maxText+1)
	if err := os.WriteFile(filepath.Join(root, "net/core/somaxconn"), []byte(tooLong), 0o644); err != nil {
		t.Fatal(err)
	}
	if l, err := files.Read(); err == nil || l.Somaxconn != nil || l.TCPFinTimeout == nil {
		t.Errorf("an endless value: %v", err)
	}
}

func TestReadHostFakes(t *testing.T) {
	got, err := ReadHost(fakeRoot(t, map[string]string{
		"net/ipv4/tcp_mem":                   "1\t2\t3\n",
		"net/nf_conntrack_max":               "262144\n",
		"net/netfilter/nf_conntrack_buckets": "broken\n",
	}))
	if diff := cmp.Diff(HostLimits{TCPMem: &[3]int{1, 2, 3}, NFConntrackMax: new(262144)}, got); diff != "" {
		t.Errorf("host limits (-want +got):\n%s", diff)
	}
	if err == nil || !strings.Contains(err.Error(), `nf_conntrack_buckets: "broken\n"`) {
		t.Errorf("error: %v", err)
	}
	if got, err := ReadHost(t.TempDir()); err != nil || got != (HostLimits{}) {
		t.Errorf("an empty root: %v, %v", got, err)
	}
}

// The number of allocations does not grow with the number of settings.
func TestReadAllocations(t *testing.T) {
	texts := map[string]string{}
	for _, set := range settings() {
		texts[set.name] = "60\n"
	}
	texts["net/ipv4/ip_local_port_range"] = "32768\t60999\n"
	texts["net/ipv4/ip_local_reserved_ports"] = "8080,9148-9150\n"
	files, err := Open(fakeRoot(t, texts))
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	const most = 10
	n := testing.AllocsPerRun(50, func() {
		if _, err := files.Read(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%v allocations", n)
	if n > most {
		t.Errorf("Read makes %v allocations, want at most %d", n, most)
	}
}
