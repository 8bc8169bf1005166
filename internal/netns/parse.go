package netns

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"path"
	"strings"
)

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

// parsePID reads the name of a process's directory.
func parsePID(b []byte) (int32, bool) {
	n, ok := parseUint(b)
	return int32(n), ok && n > 0 && n <= math.MaxInt32
}

// parseLink reads the inode number from a namespace's name, "net:[4026531840]".
func parseLink(b []byte, kind string) (uint64, bool) {
	rest, ok := bytes.CutPrefix(b, []byte(kind))
	if !ok || len(rest) < 4 || string(rest[:2]) != ":[" || rest[len(rest)-1] != ']' {
		return 0, false
	}
	n, ok := parseUint(rest[2 : len(rest)-1])
	return n, ok && n > 1 // 0 and 1 are used for processes without a namespace
}

// A dirent is one entry of a directory, borrowed from the buffer.
type dirent struct {
	name  []byte
	inode uint64
}

// parseDirent takes the first linux_dirent64 off a buffer. It returns false at
// the buffer's end, or if what is there isn't one.
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
	return dirent{name: name, inode: binary.NativeEndian.Uint64(b)}, b[size:], true
}

// parseMount reads a line of /proc/PID/mountinfo, and is true if a network
// namespace is mounted there:
//
//	612 27 0:4 net:[4026532253] /run/netns/blue rw shared:9 - nsfs nsfs rw
func parseMount(line []byte) (inode uint64, point string, ok bool) {
	_, end, found := bytes.Cut(line, []byte(" - "))
	if !found || !bytes.HasPrefix(end, []byte("nsfs ")) {
		return 0, "", false
	}
	for range 3 {
		if _, line, found = bytes.Cut(line, []byte(" ")); !found {
			return 0, "", false
		}
	}
	root, rest, _ := bytes.Cut(line, []byte(" "))
	if inode, ok = parseLink(root, "net"); !ok {
		return 0, "", false
	}
	target, _, _ := bytes.Cut(rest, []byte(" "))
	const maxPath = 4096 // of the kernel
	if len(target) == 0 || target[0] != '/' || len(target) > 4*maxPath {
		return 0, "", false
	}
	return inode, unescape(target), true
}

// unescape takes back what the kernel does to blanks, tabs, line ends and
// backslashes in mountinfo: \040.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	octal := func(c byte) bool { return c >= '0' && c <= '7' }
	var s strings.Builder
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && b[i+1] <= '3' && octal(b[i+1]) && octal(b[i+2]) && octal(b[i+3]) {
			s.WriteByte((b[i+1]-'0')<<6 | (b[i+2]-'0')<<3 | (b[i+3] - '0'))
			i += 3
			continue
		}
		s.WriteByte(b[i])
	}
	return s.String()
}

// mountedName is what `ip netns` calls what is mounted there, "" if that isn't
// its directory or a container runtime has put it there: their names
// (cni-UUID, netns-UUID, UUID) say nothing.
func mountedName(point string) string {
	name, ok := strings.CutPrefix(withoutVar(point), "/run/netns/")
	if !ok || name == "" || strings.Contains(name, "/") {
		return ""
	}
	id := strings.TrimPrefix(strings.TrimPrefix(name, "cni-"), "netns-")
	if len(id) >= 32 && strings.Trim(id, "0123456789abcdef-") == "" {
		return ""
	}
	return name
}

// withoutVar writes /var/run as /run, to which it is a link.
func withoutVar(p string) string {
	if strings.HasPrefix(p, "/var/run/") {
		return p[len("/var"):]
	}
	return p
}

// cgroupLines calls f for the lines "hierarchy:controllers:path" of
// /proc/PID/cgroup. v2's hierarchy has no controllers here. A last line without
// its end may be cut off, and is left out.
func cgroupLines(b []byte, f func(controllers, path string)) {
	for line := range bytes.Lines(b) {
		line, whole := strings.CutSuffix(string(line), "\n")
		_, rest, _ := strings.Cut(line, ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if ok && whole && strings.HasPrefix(path, "/") {
			f(controllers, path)
		}
	}
}

// parseCgroup chooses a path from /proc/PID/cgroup, as it is seen in a cgroup
// namespace that has these roots. Where systemd has a hierarchy of its own (v1
// and hybrid), it is the one that names units and containers: v2 then often has
// the whole runtime in one group.
func parseCgroup(b []byte, roots map[string]string) string {
	var systemd, v2, v1 string
	cgroupLines(b, func(controllers, path string) {
		path = absolute(roots[controllers], path)
		switch {
		case path == "/":
		case controllers == "name=systemd":
			systemd = path
		case controllers == "":
			v2 = path
		case v1 == "":
			v1 = path
		}
	})
	return cmp.Or(systemd, v2, v1)
}

// parseCgroupRoots finds the roots of a cgroup namespace, by controllers, from
// what the file of a process in it says inside, and outside. It is false if that
// doesn't fit.
func parseCgroupRoots(inside, outside []byte) (roots map[string]string, ok bool) {
	relative := map[string]string{}
	cgroupLines(inside, func(controllers, path string) { relative[controllers] = path })
	roots, ok = map[string]string{}, true
	cgroupLines(outside, func(controllers, path string) {
		inner := relative[controllers]
		root, fits := strings.CutSuffix(path, strings.TrimSuffix(inner, "/"))
		ok = ok && fits && inner != ""
		roots[controllers] = root
	})
	return roots, ok
}

// absolute takes a cgroup path as it is seen in a cgroup namespace whose root is
// at root to that of the whole tree: "/../b" seen from "/x/a" is "/x/b".
func absolute(root, cgroup string) string {
	if cgroup == "" || root == "" {
		return cgroup
	}
	return path.Join(root, cgroup)
}

// firstParts cuts a cgroup path after n parts.
func firstParts(cgroup string, n int) string {
	for i := 1; i < len(cgroup); i++ {
		if cgroup[i] == '/' {
			if n--; n == 0 {
				return cgroup[:i]
			}
		}
	}
	return cgroup
}

var errPulse = errors.New("not what the kernel writes there")

// parseSegments reads the Tcp lines of net/snmp: one with the names, one with
// the values.
func (p *Pulse) parseSegments(b []byte) error {
	const head = "Tcp: "
	var names, values []byte
	for line := range bytes.Lines(b) {
		if !bytes.HasPrefix(line, []byte(head)) {
			continue
		}
		line = bytes.TrimSuffix(line[len(head):], []byte("\n"))
		if names == nil {
			names = line
			continue
		}
		values = line
		break
	}
	found := 0
	for len(names) > 0 && len(values) > 0 {
		var name, value []byte
		name, names, _ = bytes.Cut(names, []byte(" "))
		value, values, _ = bytes.Cut(values, []byte(" "))
		var into *uint64
		switch string(name) {
		case "InSegs":
			into = &p.InSegs
		case "OutSegs":
			into = &p.OutSegs
		default:
			continue
		}
		var ok bool
		if *into, ok = parseUint(value); !ok {
			return errPulse
		}
		found++
	}
	if found != 2 {
		return errPulse
	}
	return nil
}

// parseSockets reads the TCP line of net/sockstat: "TCP: inuse 5 orphan 0 tw 2 …".
func (p *Pulse) parseSockets(b []byte) error {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("TCP: "))
		if !ok {
			continue
		}
		rest = bytes.TrimSuffix(rest, []byte("\n"))
		found := 0
		for len(rest) > 0 {
			var name, value []byte
			name, rest, _ = bytes.Cut(rest, []byte(" "))
			value, rest, _ = bytes.Cut(rest, []byte(" "))
			var into *uint64
			switch string(name) {
			case "inuse":
				into = &p.InUse
			case "tw":
				into = &p.TimeWait
			default:
				continue
			}
			if *into, ok = parseUint(value); !ok {
				return errPulse
			}
			found++
		}
		if found == 2 {
			return nil
		}
		break
	}
	return errPulse
}
