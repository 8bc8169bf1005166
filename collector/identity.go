package collector

import (
	"strconv"
	"strings"
)

// identity is which kernel and which network namespace a Collector looks at.
type identity struct {
	name   string
	kind   string // as in snapshot.Namespace
	host   bool   // the initial network namespace
	inode  uint64
	cookie uint64 // SO_NETNS_COOKIE, 0 before Linux 5.14
	bootID string
}

// listsBound tells whether the kernel lists bound, unconnected sockets: Linux
// 6.8 and newer. A release that can't be read counts as one that doesn't.
func listsBound(release string) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = rest[:i]
	}
	x, err1 := strconv.Atoi(major)
	y, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (x > 6 || x == 6 && y >= 8)
}
