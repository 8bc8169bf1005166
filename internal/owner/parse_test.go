package owner

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func statLine(comm string) string {
	return "42 (" + comm + ") S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 9 10 18446744073709551615\n"
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	for _, comm := range []string{"nginx", "", ")", "a) S 1 (b", "x\n1 (y) R 2", "((((", strings.Repeat(")", 64), "\xff\x00"} {
		got, ok := parseStat([]byte(statLine(comm)))
		if !ok || got.start != 12345 || got.parent != 7 || got.kernel {
			t.Errorf("%q: %+v, %v", comm, got, ok)
		}
	}
	if a, _ := parseStat([]byte(statLine("a"))); a.name == 0 {
		t.Error("no hash of the name")
	} else if b, _ := parseStat([]byte(statLine("b"))); a.name == b.name {
		t.Error("two names, one hash")
	}
	if got, ok := parseStat([]byte("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n")); !ok || !got.kernel {
		t.Errorf("kernel thread: %+v, %v", got, ok)
	}
	for _, bad := range []string{"", "1", "1 (x", ")(", "1 (x) S 1 1", statLine("x")[:50], strings.Replace(statLine("x"), " 12345 ", " -5 ", 1), strings.Replace(statLine("x"), " 7 ", " 4294967296 ", 1)} {
		if got, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q: %+v, want it refused", bad, got)
		}
	}
}

func TestParseLink(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint32{
		"socket:[1]": 1, "socket:[4294967295]": math.MaxUint32, "socket:[4294967296]": 0, "socket:[0]": 0, "socket:[]": 0,
		"socket:[+1]": 0, "socket:[1] ": 0, "pipe:[1]": 0, "": 0, "socket:[99999999999999999999999]": 0, "/tmp/socket:[1]": 0,
	} {
		if got, ok := parseLink([]byte(text)); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, ok, want)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("x", 2*maxCgroup)
	for _, c := range []struct{ text, v2, shown string }{
		{"0::/\n", "/", "/"},
		{"0::/system.slice/a:b.service\n", "/system.slice/a:b.service", "/system.slice/a:b.service"},
		{"9:name=systemd:/s\n4:memory:/m\n0::/\n", "/", "/s"},
		{"4:memory:/m\n9:name=systemd:/\n0::/\n", "/", "/m"},
		{"4:cpu,cpuacct:/m\n9:name=systemd:/s\n0::/v2", "/v2", "/v2"},
		{"0::" + long + "\n", long[:maxCgroup], long[:maxCgroup]},
		{"", "", ""},
		{"garbage\n0:x\n0::relative\n::\n", "", ""},
	} {
		if v2, shown := parseCgroup([]byte(c.text)); v2 != c.v2 || shown != c.shown {
			t.Errorf("%.40q: %.40q, %.40q, want %.40q, %.40q", c.text, v2, shown, c.v2, c.shown)
		}
	}
}

func TestParseCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exe, args string // arguments with | for NUL
		want      command
	}{
		{"/usr/sbin/nginx", "nginx: worker process|||", command{title: "nginx: worker process"}},
		{"/usr/sbin/php-fpm8.2", "php-fpm: pool www        |", command{title: "php-fpm: pool www"}},
		{"/usr/bin/php8.2", "php|-d|x=1|-f|/srv/job.php|--|-x|", command{title: "php", script: "/srv/job.php"}},
		{"/usr/bin/php8.2", "php|-r|echo 1;|", command{title: "php"}},
		{"/usr/bin/python3.11", "python3|-u|-W|ignore|/srv/app.py|-m|x|", command{title: "python3", script: "/srv/app.py"}},
		{"/usr/bin/python3.11 (deleted)", "/usr/bin/python3|-m|gunicorn|app:app|", command{title: "/usr/bin/python3", script: "-m gunicorn"}},
		{"/usr/bin/python3", "gunicorn: master [app]|", command{title: "gunicorn: master [app]"}},
		{"/usr/bin/python3", "python3|-c|import x|y|", command{title: "python3"}},
		{"/usr/bin/python3", "python3|-|y|", command{title: "python3", script: "-"}},
		{"", "/usr/local/bin/node|--require|./a.js|--max-old-space-size=1|server.js|x|", command{title: "/usr/local/bin/node", script: "server.js"}},
		{"/usr/bin/node", "node|-e|1|", command{title: "node"}},
		{"/usr/bin/ruby3.1", "ruby|-Ilib|-r|x|bin/puma|", command{title: "ruby", script: "bin/puma"}},
		{"/usr/bin/perl", "perl|-w|--|-odd.pl|", command{title: "perl", script: "-odd.pl"}},
		{"/jdk/bin/java", "java|-Xmx1g|-cp|a.jar:b.jar|-Dx=y|org.example.Main|arg|", command{title: "java", javaMain: "org.example.Main"}},
		{"/jdk/bin/java", "java|-jar|-Dx=y|/srv/app.jar|--server|", command{title: "java", javaMain: "/srv/app.jar"}},
		{"/jdk/bin/java", "java|--module-path|mods|-m|a.b/c.D|", command{title: "java", javaMain: "a.b/c.D"}},
		{"/jdk/bin/java", "java|@args|--module=a/B|", command{title: "java", javaMain: "a/B"}},
		{"/jdk/bin/java", "java|-cp|", command{title: "java"}},
		{"/bin/sh", "sh|script|", command{title: "sh"}},
		{"", "", command{}},
	} {
		if got := parseCommand([]byte(strings.ReplaceAll(c.args, "|", "\x00")), c.exe, true); got != c.want {
			t.Errorf("%s %q: %+v, want %+v", c.exe, c.args, got, c.want)
		}
	}
	cutOff := []byte("java\x00-cp\x00x\x00org.exam")
	if got := parseCommand(cutOff, "/bin/java", false); got.javaMain != "" {
		t.Errorf("main class %q of an argument that was cut off", got.javaMain)
	}
}

func TestParseOpenFiles(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/limits")
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := parseOpenFiles(text); n != 1024 || !ok {
		t.Errorf("%d, %v", n, ok)
	}
	for _, bad := range []string{"", "Max open files", "Max open files -1\n", "Max open files\n1024\n"} {
		if n, ok := parseOpenFiles([]byte(bad)); ok {
			t.Errorf("%q: %d", bad, n)
		}
	}
}

func TestParseLastPID(t *testing.T) {
	t.Parallel()
	if n, ok := parseLastPID([]byte("1.77 1.38 2.78 4/110 10677\n")); n != 10677 || !ok {
		t.Errorf("%d, %v", n, ok)
	}
	for _, bad := range []string{"", "\n", "1.0", "1 x", "1 99999999999"} {
		if n, ok := parseLastPID([]byte(bad)); ok {
			t.Errorf("%q: %d", bad, n)
		}
	}
}

// An executable with one section of Go's, made of the least that ELF needs.
func elf(buildinfo []byte) []byte {
	names := []byte("\x00.shstrtab\x00.go.buildinfo\x00")
	b := make([]byte, 64+3*64)
	copy(b, "\x7fELF\x02\x01\x01")
	order := binary.LittleEndian
	order.PutUint64(b[40:], 64)
	order.PutUint16(b[58:], 64)
	order.PutUint16(b[60:], 3)
	order.PutUint16(b[62:], 1)
	section := func(i, name int, content []byte) {
		h := b[64+64*i:]
		order.PutUint32(h, uint32(name))
		order.PutUint64(h[24:], uint64(len(b)))
		order.PutUint64(h[32:], uint64(len(content)))
		b = append(b, content...)
	}
	section(1, 1, names)
	section(2, 11, buildinfo)
	return b
}

func buildInfo(flags byte, version, module string) []byte {
	b := make([]byte, 32)
	copy(b, "\xff Go buildinf:\x08")
	b[15] = flags
	b = append(binary.AppendUvarint(b, uint64(len(version))), version...)
	return append(binary.AppendUvarint(b, uint64(len(module))), module...)
}

func TestReadBuild(t *testing.T) {
	t.Parallel()
	mark := strings.Repeat("m", 16)
	for _, c := range []struct {
		name            string
		file            []byte
		version, module string
	}{
		{"module", elf(buildInfo(2, "go1.26", mark+"path\tcommand-line-arguments\nmod\texample.org/x\tv1\th1:x\ndep\ty\n"+mark)), "1.26", "example.org/x"},
		{"no module", elf(buildInfo(2, "go1.26", mark+"path\ta/b\nbuild\t-x=mod\n"+mark)), "1.26", "a/b"},
		{"no modules at all", elf(buildInfo(2, "go1.26", "")), "1.26", "go"},
		{"pointers", elf(buildInfo(0, "", "")), "", "go"},
		{"not a release", elf(buildInfo(2, "devel go1.27-0123456 Mon", "")), "1.27", "go"},
		{"no version", elf(buildInfo(2, "go1.26.8.1.2.3.4.5.6.7", "")), "", "go"},
		{"long", elf(buildInfo(2, "go1.26", mark+"path\t"+strings.Repeat("x", 20_000))), "1.26", strings.Repeat("x", 256)},
		{"a string longer than the file", elf(append(buildInfo(2, "go1.26", "")[:39], 0xff, 0x7f, 'x')), "1.26", "go"},
		{"not Go's section", elf([]byte("hello")), "", ""},
		{"empty", nil, "", ""},
		{"a script", []byte("#!/bin/sh\n" + strings.Repeat("x", 100)), "", ""},
	} {
		version, module := readBuild(bytes.NewReader(c.file))
		if version != c.version || module != c.module {
			t.Errorf("%s: %q, %.40q, want %q, %.40q", c.name, version, module, c.version, c.module)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if version, _ := readBuild(f); version != "" && !strings.HasPrefix(version, "1.") {
		t.Errorf("this test was built by %q", version)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statLine("a) b")))
	f.Add([]byte("2 (k) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := parseStat(b)
		if !ok {
			return
		}
		// Whatever name is put into a good line, the fields stay what they are.
		line := "1 (" + string(b) + string(b[bytes.LastIndexByte(b, ')'):])
		again, ok := parseStat([]byte(line))
		if !ok || again.start != s.start || again.parent != s.parent || again.kernel != s.kernel {
			t.Errorf("%q: %+v, inside of another's name %+v, %v", b, s, again, ok)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	for _, s := range []string{"socket:[123]", "socket:[4294967296]", "pipe:[1]", "socket:[", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		inode, ok := parseLink(b)
		if ok && (inode == 0 || strings.TrimLeft(string(b[8:len(b)-1]), "0") != strconv.FormatUint(uint64(inode), 10)) {
			t.Errorf("%q: %d", b, inode)
		}
		if again, ok := parseLink([]byte("socket:[" + strconv.FormatUint(uint64(max(inode, 1)), 10) + "]")); !ok || again != max(inode, 1) {
			t.Errorf("%d is read as %d, %v", inode, again, ok)
		}
	})
}

func FuzzParseCommand(f *testing.F) {
	f.Add([]byte("python3\x00-m\x00gunicorn\x00"), "/usr/bin/python3", true)
	f.Add([]byte("java\x00-cp\x00a\x00Main"), "/bin/java", false)
	f.Add([]byte("nginx: worker process\x00\x00"), "", true)
	f.Fuzz(func(t *testing.T, b []byte, exe string, whole bool) {
		c := parseCommand(b, exe, whole)
		for _, s := range []string{c.title, c.script, c.javaMain} {
			if len(s) > maxText || strings.Contains(s, "\x00") || s != "" && !bytes.Contains(b, []byte(strings.TrimPrefix(s, "-m "))) {
				t.Errorf("%q is in %+v, and not in %q", s, c, b)
			}
		}
		if utf8.Valid(b) && c.script != "" && c.javaMain != "" {
			t.Errorf("%+v is run by two interpreters", c)
		}
	})
}

func FuzzParseCgroup(f *testing.F) {
	f.Add([]byte("9:name=systemd:/s\n4:memory:/m\n0::/\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range func() []string { v2, shown := parseCgroup(b); return []string{v2, shown} }() {
			if len(s) > maxCgroup || s != "" && s[0] != '/' || strings.Contains(s, "\n") {
				t.Errorf("%q from %q", s, b)
			}
		}
	})
}

func FuzzParseDirent(f *testing.F) {
	entry := append(make([]byte, 16), 24, 0, 4, '1', '2', 0, 0, 0)
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
			b = rest
		}
	})
}

func FuzzReadBuild(f *testing.F) {
	f.Add(elf(buildInfo(2, "go1.26", strings.Repeat("m", 16)+"path\ta\nmod\tb\n")))
	f.Add(elf(buildInfo(0, "", "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		version, module := readBuild(bytes.NewReader(b))
		if len(version) > maxVersion || len(module) > maxText || version != "" && module == "" || !bytes.Contains(b, []byte(version)) || module != "go" && !bytes.Contains(b, []byte(module)) {
			t.Errorf("%q, %q", version, module)
		}
	})
}
