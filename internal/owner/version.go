package owner

import (
	"bytes"
	"io"
	"path"
	"strings"
)

// maxVersion is the longest version in bytes.
const maxVersion = 16

// takeVersion takes the version that b begins with: digits with single dots
// between them, "" if there is none or it is too long to be one.
func takeVersion(b []byte) string {
	n := 0
	for n < len(b) && (isDigit(b[n]) || b[n] == '.' && n > 0 && n+1 < len(b) && b[n-1] != '.' && isDigit(b[n+1])) {
		n++
	}
	if n > maxVersion {
		return ""
	}
	return string(b[:n])
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// nameVersion is the version in the name of an interpreter's executable:
// "3.11" of /usr/bin/python3.11. A major version alone ("python3") is none: it
// is less than each release that it may be.
func nameVersion(exe string) string {
	name := programName(exe)
	for _, interpreter := range []string{"python", "pypy", "php-fpm", "php-cgi", "php", "ruby", "perl"} {
		rest, ok := strings.CutPrefix(name, interpreter)
		if v := takeVersion([]byte(rest)); ok && v == rest && strings.Contains(v, ".") {
			return v
		}
	}
	return ""
}

// programName is the last part of an executable's path, without the kernel's
// mark of a file that is gone.
func programName(exe string) string {
	return path.Base(strings.TrimSuffix(exe, " (deleted)"))
}

// saysVersion tells whether an executable of this name holds the text that
// scanVersion looks for: nginx, and what is built from its source.
func saysVersion(exe string) bool {
	name := programName(exe)
	return name == "nginx" || name == "openresty"
}

// maxScan is how much of an executable is read for its version.
const maxScan = 32 << 20

// scanVersion looks in an nginx executable for what nginx -v prints:
// "nginx version: nginx/1.22.1", or openresty/1.21.4.1, which begins with the
// version of the nginx within. It reads at most maxScan bytes, through one
// buffer.
func scanVersion(r io.Reader) string {
	const (
		size = 64 << 10
		text = 64 // more than mark, name and version take
	)
	mark := []byte("nginx version: ")
	r = io.LimitReader(r, maxScan)
	buffer, kept := make([]byte, size), 0
	for {
		n, err := io.ReadFull(r, buffer[kept:])
		b := buffer[:kept+n]
		for {
			at := bytes.Index(b, mark)
			if at < 0 || err == nil && len(b)-at < text {
				break // what follows may be in the next piece
			}
			b = b[at+len(mark):]
			for _, name := range []string{"nginx/", "openresty/"} {
				rest, ok := bytes.CutPrefix(b, []byte(name))
				if v := takeVersion(rest[:min(len(rest), text)]); ok && v != "" {
					return v
				}
			}
		}
		if err != nil {
			return ""
		}
		kept = copy(buffer, b[max(0, len(b)-text):])
	}
}
