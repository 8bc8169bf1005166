package owner

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"math"
	"path"
	"strconv"
	"strings"
)

// status is what is needed of /proc/PID/stat.
type status struct {
	start  uint64 // clock ticks after boot, field 22
	name   uint64 // a hash of field 2
	parent int32  // field 4
	kernel bool   // PF_KTHREAD in field 9
}

// parseStat reads /proc/PID/stat. The name in field 2 is whatever the process
// likes, parentheses, blanks and line ends included, so it ends at the last
// parenthesis.
func parseStat(b []byte) (status, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return status{}, false
	}
	const kernelThread = 0x00200000
	var s status
	h := fnv.New64a()
	h.Write(b[open : end+1])
	s.name = h.Sum64()
	field := 2
	for word := range bytes.FieldsSeq(b[end+1:]) {
		field++
		switch field {
		case 4:
			n, ok := parseUint(word)
			if !ok || n > math.MaxInt32 {
				return status{}, false
			}
			s.parent = int32(n)
		case 9:
			n, ok := parseUint(word)
			if !ok {
				return status{}, false
			}
			s.kernel = n&kernelThread != 0
		case 22:
			var ok bool
			s.start, ok = parseUint(word)
			return s, ok
		}
	}
	return status{}, false
}

// parseUint reads a decimal number that fills b.
func parseUint(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// parsePID reads the name of a process's directory, or a descriptor's.
func parsePID(b []byte) (int32, bool) {
	n, ok := parseUint(b)
	return int32(n), ok && n <= math.MaxInt32
}

// parseLink reads the inode from a descriptor's link: "socket:[123]".
func parseLink(b []byte) (uint32, bool) {
	const head = "socket:["
	if len(b) < len(head)+2 || string(b[:len(head)]) != head || b[len(b)-1] != ']' {
		return 0, false
	}
	n, ok := parseUint(b[len(head) : len(b)-1])
	return uint32(n), ok && n > 0 && n <= math.MaxUint32
}

// A dirent is one entry of a directory, borrowed from the buffer.
type dirent struct {
	name  []byte
	inode uint64
	next  int64 // the position after it
}

// parseDirent takes the first linux_dirent64 off a buffer. It returns false
// at the buffer's end, or if what is there isn't one.
func parseDirent(b []byte) (d dirent, rest []byte, ok bool) {
	const header = 19 // d_ino, d_off, d_reclen, d_type
	if len(b) < header {
		return dirent{}, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < header || size > len(b) {
		return dirent{}, nil, false
	}
	name := b[header:size]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return dirent{
		name:  name,
		inode: binary.NativeEndian.Uint64(b),
		next:  int64(binary.NativeEndian.Uint64(b[8:])),
	}, b[size:], true
}

// parseCgroup reads /proc/PID/cgroup: "hierarchy:controllers:path" in lines.
// v2 is the path of hierarchy 0; shown is the path to show, since on hybrid
// mounts all of v2 may be "/".
func parseCgroup(b []byte) (v2, shown string) {
	best := 0
	for line := range bytes.Lines(b) {
		id, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":"))
		controllers, where, ok := bytes.Cut(rest, []byte(":"))
		if !ok || len(where) == 0 || where[0] != '/' {
			continue
		}
		worth := 2
		switch {
		case len(where) == 1:
			worth = 1
		case string(id) == "0" && len(controllers) == 0:
			worth = 4
		case string(controllers) == "name=systemd":
			worth = 3
		}
		if string(id) == "0" && len(controllers) == 0 {
			v2 = cut(where, maxCgroup)
		}
		if worth > best {
			best, shown = worth, cut(where, maxCgroup)
		}
	}
	return v2, shown
}

// parseOpenFiles reads the soft limit of "Max open files" in /proc/PID/limits.
// "unlimited" is math.MaxInt.
func parseOpenFiles(b []byte) (int, bool) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("Max open files "))
		if !ok {
			continue
		}
		for word := range bytes.FieldsSeq(rest) {
			if string(word) == "unlimited" {
				return math.MaxInt, true
			}
			n, ok := parseUint(word)
			return int(min(n, math.MaxInt)), ok
		}
	}
	return 0, false
}

// parseLastPID reads the last field of /proc/loadavg: the pid given last.
func parseLastPID(b []byte) (int64, bool) {
	b = bytes.TrimSpace(b)
	n, ok := parseUint(b[bytes.LastIndexByte(b, ' ')+1:])
	return int64(n), ok && n <= math.MaxInt32
}

const (
	maxText   = 256
	maxCgroup = 512 // a container's path in a pod's in a node that is a container
)

// cut copies at most limit bytes. What it returns is raw.
func cut(b []byte, limit int) string { return string(b[:min(len(b), limit)]) }

// A command is what the arguments of a process tell of its runtime.
type command struct{ title, script, javaMain string }

// parseCommand reads /proc/PID/cmdline: arguments that each end in NUL. exe is
// the executable's path, "" if unknown. whole is false if b is cut off, and
// its last argument then isn't used.
func parseCommand(b []byte, exe string, whole bool) command {
	first, rest, ended := bytes.Cut(b, []byte{0})
	c := command{title: cut(bytes.TrimRight(first, " "), maxText)}
	if !ended {
		return c
	}
	args := func(yield func(string) bool) {
		for len(rest) > 0 {
			arg, after, ended := bytes.Cut(rest, []byte{0})
			if !ended && !whole {
				return
			}
			rest = after
			if !yield(string(arg)) {
				return
			}
		}
	}
	if exe == "" {
		exe = c.title
	}
	switch name := program(exe); name {
	case "java":
		c.javaMain = cut([]byte(javaMain(args)), maxText)
	case "python", "pypy", "php", "node", "nodejs", "ruby", "perl":
		c.script = cut([]byte(script(name, args)), maxText)
	}
	return c
}

// program is an executable's name without directory and version:
// "/usr/bin/python3.11" is "python".
func program(exe string) string {
	return strings.TrimRight(path.Base(strings.TrimSuffix(exe, " (deleted)")), "0123456789.-")
}

// javaMain finds what java runs: the first argument that is no option, or the
// value of -jar or -m.
func javaMain(args func(func(string) bool)) string {
	takesValue := " -cp -classpath --class-path -p --module-path --add-modules --add-exports --add-opens --add-reads --patch-module --upgrade-module-path --limit-modules --enable-native-access --source "
	main, skip := "", false
	args(func(arg string) bool {
		switch {
		case skip:
			skip = false
		case arg == "-jar" || arg == "-m" || arg == "--module":
			// Its value is the next argument that is no option.
		case strings.HasPrefix(arg, "--module="):
			main = strings.TrimPrefix(arg, "--module=")
			return false
		case strings.HasPrefix(arg, "-"):
			skip = strings.Contains(takesValue, " "+arg+" ")
		case arg == "" || arg[0] == '@': // a file of arguments
		default:
			main = arg
			return false
		}
		return true
	})
	return main
}

// script finds what an interpreter runs; "" for code given on the command line.
func script(interpreter string, args func(func(string) bool)) string {
	takesValue, noScript := "", ""
	switch interpreter {
	case "python", "pypy":
		takesValue, noScript = " -X -W --check-hash-based-pycs ", " -c "
	case "php":
		takesValue, noScript = " -d -c -z -t -S ", " -r -B -R -E -a "
	case "node", "nodejs":
		takesValue, noScript = " -r --require --import --loader --experimental-loader -C --conditions --env-file ", " -e --eval -p --print -pe "
	case "ruby":
		takesValue, noScript = " -I -r -C -E ", " -e "
	case "perl":
		takesValue, noScript = " -I ", " -e -E "
	}
	found, skip, module, ended := "", false, false, false
	args(func(arg string) bool {
		switch {
		case skip:
			skip = false
		case module:
			found = "-m " + arg
			return false
		case !ended && arg == "--":
			ended = true
		case !ended && arg == "-m" && (interpreter == "python" || interpreter == "pypy"):
			module = true
		case !ended && (arg == "-f" || arg == "-F") && interpreter == "php":
			// Its value is the script.
		case !ended && len(arg) > 1 && arg[0] == '-':
			if strings.Contains(noScript, " "+arg+" ") {
				return false
			}
			skip = strings.Contains(takesValue, " "+arg+" ")
		default:
			found = arg
			return false
		}
		return true
	})
	return found
}

// appendPID appends the name of a process's directory.
func appendPID(b []byte, pid int32) []byte { return strconv.AppendInt(b, int64(pid), 10) }
