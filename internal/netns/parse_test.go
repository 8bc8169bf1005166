package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseLink(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{
		"net:[4026531840]": 4026531840, "net:[2]": 2, "net:[18446744073709551615]": math.MaxUint64,
		"net:[18446744073709551616]": 0, "net:[0]": 0, "net:[1]": 0, "net:[]": 0, "net:[-2]": 0, "net:[2": 0, "net:2]": 0,
		"net:[2] ": 0, "mnt:[2]": 0, "net_for_children:[2]": 0, "": 0, "net": 0, "/proc/1/ns/net": 0,
	} {
		if got, ok := parseLink([]byte(text), "net"); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, ok, want)
		}
	}
}

func TestParsePID(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int32{"1": 1, "2147483647": math.MaxInt32, "2147483648": 0, "0": 0, "": 0, "self": 0, "1x": 0, "-1": 0, "99999999999999999999999": 0} {
		if got, ok := parsePID([]byte(text)); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, ok, want)
		}
	}
}

func TestParseMount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line, path string
		inode      uint64
	}{
		{"612 27 0:4 net:[4026532253] /run/netns/blue rw shared:9 - nsfs nsfs rw\n", "/run/netns/blue", 4026532253},
		{"612 27 0:4 net:[4026532253] /run/netns/a\\040b\\134\\011\\012 rw - nsfs nsfs rw", "/run/netns/a b\\\t\n", 4026532253},
		{"612 27 0:4 net:[4026532253] /x\\04 rw - nsfs nsfs rw", "/x\\04", 4026532253},
		{"612 27 0:4 mnt:[4026532253] /run/snapd/ns/x.mnt rw shared:9 - nsfs nsfs rw\n", "", 0},
		{"612 27 0:4 / /net:[2] rw shared:9 - tmpfs nsfs rw\n", "", 0},
		{"612 27 0:4 net:[4026532253] relative rw - nsfs nsfs rw\n", "", 0},
		{"612 27 0:4 net:[4026532253] /x rw - nsfsx nsfs rw\n", "", 0},
		{"612 27 - nsfs nsfs rw", "", 0},
		{"", "", 0},
	} {
		inode, path, ok := parseMount([]byte(c.line))
		if inode != c.inode || path != c.path || ok != (c.path != "") {
			t.Errorf("%q: %d, %q, %v, want %d, %q", c.line, inode, path, ok, c.inode, c.path)
		}
	}
}

func TestMountedName(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/run/netns/blue": "blue", "/var/run/netns/blue": "blue", "/run/netns/cni-x": "cni-x", "/run/netns/deadbeef": "deadbeef",
		"/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef":   "", // containerd
		"/run/netns/netns-01234567-89ab-cdef-0123-456789abcdef": "", // podman
		"/run/netns/01234567-89ab-cdef-0123-456789abcdef":       "", // CRI-O
		"/run/netns/": "", "/run/netns/a/b": "", "/run/docker/netns/0123456789ab": "", "/run/netnsx/y": "", "": "",
	} {
		if got := mountedName(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		roots map[string]string
		want  string
	}{
		{"0::/system.slice/a:b.service\n", nil, "/system.slice/a:b.service"},
		{"0::/\n", nil, ""},
		{"0::/\n", map[string]string{"": "/x/a"}, "/x/a"},
		{"0::/../b\n", map[string]string{"": "/x/a"}, "/x/b"},
		{"0::/../../../../b\n", map[string]string{"": "/x/a"}, "/b"},
		{"9:name=systemd:/s\n4:memory:/m\n0::/\n", nil, "/s"},
		{"9:name=systemd:/s\n4:memory:/m\n0::/v2\n", nil, "/s"},
		{"9:name=systemd:/\n4:memory:/m\n3:cpu,cpuacct:/c\n0::/\n", nil, "/m"},
		{"9:name=systemd:/\n4:memory:/m\n0::/v2\n", nil, "/v2"},
		{"9:name=systemd:/../s\n0::/\n", map[string]string{"name=systemd": "/docker/1", "": "/docker/1"}, "/docker/s"},
		{"0::/cut/of", nil, ""},
		{"garbage\n0:x\n0::relative\n::\n", nil, ""},
		{"", nil, ""},
	} {
		if got := parseCgroup([]byte(c.text), c.roots); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestParseCgroupRoots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		inside, outside string
		want            map[string]string // nil: it doesn't fit
	}{
		{"0::/\n", "0::/a/b\n", map[string]string{"": "/a/b"}},
		{"0::/c\n", "0::/a/b/c\n", map[string]string{"": "/a/b"}},
		{"0::/\n", "0::/\n", map[string]string{"": "/"}},
		{"2:cpu:/\n1:name=systemd:/x\n0::/\n", "2:cpu:/\n1:name=systemd:/y/x\n0::/z\n", map[string]string{"cpu": "/", "name=systemd": "/y", "": "/z"}},
		{"0::/x\n", "0::/a/b/c\n", nil},
		{"0::/../c\n", "0::/a/c\n", nil}, // it left the namespace's root meanwhile
		{"1:cpu:/\n", "0::/a\n", nil},
	} {
		got, ok := parseCgroupRoots([]byte(c.inside), []byte(c.outside))
		if ok != (c.want != nil) || ok && cmp.Diff(c.want, got) != "" {
			t.Errorf("%q, %q: %v, %v, want %v", c.inside, c.outside, got, ok, c.want)
		}
	}
}

func TestFirstParts(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"": "", "/": "/", "/a": "/a", "/a/b": "/a/b", "/a/b/c/d": "/a/b", "/a/b/": "/a/b",
		"/user.slice/user-1000.slice/user@1000.service/app.slice": "/user.slice/user-1000.slice",
	} {
		if got := firstParts(path, 2); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

func TestParsePulse(t *testing.T) {
	t.Parallel()
	snmp, err1 := os.ReadFile("testdata/snmp")
	sockstat, err2 := os.ReadFile("testdata/sockstat")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	var p Pulse
	if err := errors.Join(p.parseSegments(snmp), p.parseSockets(sockstat)); err != nil {
		t.Fatal(err)
	}
	if want := (Pulse{InSegs: 89129, OutSegs: 81682, InUse: 1, TimeWait: 4}); p != want {
		t.Errorf("%+v, want %+v", p, want)
	}
	for _, bad := range []string{"", "Tcp: InSegs OutSegs\n", "Tcp: InSegs\nTcp: 1\n", "Tcp: InSegs OutSegs\nTcp: 1\n", "Tcp: InSegs OutSegs\nTcp: 1 -2\n", "Tcp: InSegs OutSegs\nTcp: 1 18446744073709551616\n", "Udp: InSegs OutSegs\nUdp: 1 2\n"} {
		if err := p.parseSegments([]byte(bad)); err == nil {
			t.Errorf("%q is taken for segments", bad)
		}
	}
	for _, bad := range []string{"", "TCP: inuse 1\n", "TCP: inuse 1 tw\n", "TCP: inuse x tw 1\n", "UDP: inuse 1 tw 1\n", "TCP: tw 1 inuse"} {
		if err := p.parseSockets([]byte(bad)); err == nil {
			t.Errorf("%q is taken for sockets", bad)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{&Error{"open", "/run/netns/a\nb", fs.ErrNotExist}, `netns: open "/run/netns/a\nb": file does not exist`},
		{&Error{"open", "1/ns/net", fs.ErrPermission}, `netns: open "1/ns/net": permission denied: looking at other users' processes needs CAP_SYS_PTRACE`},
		{&Error{"enter", "net:[7]", fs.ErrPermission}, `netns: enter "net:[7]": permission denied: entering a namespace needs CAP_SYS_ADMIN`},
		{&DeniedError{3}, "netns: the network namespaces of 3 processes can't be seen: that needs CAP_SYS_PTRACE"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	for _, s := range []string{"net:[4026531840]", "net:[1]", "mnt:[2]", "net:[", "net:[00002]", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		inode, ok := parseLink(b, "net")
		if ok && (inode < 2 || strings.TrimLeft(string(b[5:len(b)-1]), "0") != strconv.FormatUint(inode, 10)) {
			t.Errorf("%q: %d", b, inode)
		}
		inode = max(inode, 2)
		if again, ok := parseLink(fmt.Appendf(nil, "net:[%d]", inode), "net"); !ok || again != inode {
			t.Errorf("%d is read as %d, %v", inode, again, ok)
		}
	})
}

func FuzzParseDirent(f *testing.F) {
	entry := binary.NativeEndian.AppendUint64(nil, 12345)
	entry = append(entry, make([]byte, 8)...)
	entry = append(entry, 24, 0, 4, '1', '2', 0, 0, 0)
	f.Add(append(entry, entry...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			d, rest, ok := parseDirent(b)
			if !ok {
				return
			}
			if len(rest) > len(b)-19 || len(d.name) > len(b)-len(rest)-19 || bytes.IndexByte(d.name, 0) >= 0 {
				t.Fatalf("%d bytes leave %d with the name %q", len(b), len(rest), d.name)
			}
			if pid, ok := parsePID(d.name); ok && (pid <= 0 || strings.TrimLeft(string(d.name), "0") != strconv.Itoa(int(pid))) {
				t.Fatalf("%q is process %d", d.name, pid)
			}
			b = rest
		}
	})
}

// escape does what the kernel does to paths in mountinfo.
func escape(path string) string {
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(path)
}

func FuzzParseMount(f *testing.F) {
	f.Add([]byte("612 27 0:4 net:[4026532253] /run/netns/blue rw shared:9 - nsfs nsfs rw\n"))
	f.Add([]byte(`1 2 0:4 net:[4026532253] /a\040b\134 rw - nsfs nsfs rw`))
	f.Fuzz(func(t *testing.T, line []byte) {
		inode, path, ok := parseMount(line)
		if ok && (inode < 2 || !strings.HasPrefix(path, "/")) {
			t.Errorf("%q: %d, %q", line, inode, path)
		}
		if name := mountedName(path); strings.Contains(name, "/") || !strings.HasSuffix(path, name) {
			t.Errorf("%q is called %q", path, name)
		}
		// Whatever path there is, it comes back from the kernel's line.
		want := "/" + string(line)
		if len(escape(want)) > 4*4096 {
			return
		}
		_, got, ok := parseMount([]byte("1 2 0:4 net:[7] " + escape(want) + " rw - nsfs nsfs rw\n"))
		if !ok || got != want {
			t.Errorf("%q comes back as %q, %v", want, got, ok)
		}
	})
}

func FuzzParseCgroup(f *testing.F) {
	f.Add([]byte("9:name=systemd:/s\n4:memory:/m\n0::/v2\n"), "/a/b")
	f.Add([]byte("0::/../../c\n"), "/a")
	f.Fuzz(func(t *testing.T, b []byte, root string) {
		if !strings.HasPrefix(root, "/") || strings.ContainsAny(root, "\n") {
			return
		}
		root = absolute(root, "/")
		got := parseCgroup(b, map[string]string{"": root, "name=systemd": root})
		if got != "" && got[0] != '/' || got == "/" || strings.Contains(got, "\n") {
			t.Errorf("%q from %q", got, b)
		}
		// A namespace's root is found again from what is seen on either side.
		inner := absolute("/", "/"+strings.ReplaceAll(string(b), "\n", ""))
		line := func(path string) []byte { return []byte("0::" + path + "\n") }
		roots, ok := parseCgroupRoots(line(inner), line(absolute(root, inner)))
		if !ok || parseCgroup(line(inner), roots) != parseCgroup(line(absolute(root, inner)), nil) {
			t.Errorf("root %q, inside %q: %q, %v", root, inner, roots, ok)
		}
	})
}

func FuzzParsePulse(f *testing.F) {
	f.Add([]byte("Ip: A\nIp: 1\nTcp: A InSegs OutSegs\nTcp: -1 5 6\n"), uint64(1), uint64(2))
	f.Add([]byte("TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1\n"), uint64(0), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, b []byte, x, y uint64) {
		var p Pulse
		_, _ = p.parseSegments(b), p.parseSockets(b)
		// Two values are found whatever lines of other protocols stand before.
		var before bytes.Buffer
		for line := range bytes.Lines(b) {
			if !bytes.HasPrefix(line, []byte("Tcp: ")) && !bytes.HasPrefix(line, []byte("TCP: ")) {
				before.Write(bytes.TrimSuffix(line, []byte("\n")))
				before.WriteByte('\n')
			}
		}
		p = Pulse{}
		err1 := p.parseSegments(fmt.Appendf(before.Bytes(), "Tcp: ActiveOpens InSegs OutSegs InErrs\nTcp: 1 %d %d 4\n", x, y))
		err2 := p.parseSockets(fmt.Appendf(before.Bytes(), "TCP: inuse %d orphan 0 tw %d alloc 9 mem 9\n", x, y))
		if want := (Pulse{x, y, x, y}); err1 != nil || err2 != nil || p != want {
			t.Errorf("after %q: %+v, %v, %v, want %+v", before.Bytes(), p, err1, err2, want)
		}
	})
}
