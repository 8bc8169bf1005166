package exporter

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
	"unique"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// maxLabel bounds a label's value, in bytes.
const maxLabel = 128

// clean makes a label's value of any text: valid UTF-8, at most maxLabel
// bytes, cut between runes. What is not printable (control and bidi
// characters) stands as \uXXXX, since values end on terminals and in pages.
func clean(s string) string {
	if len(s) <= maxLabel && isPlain(s) {
		return s
	}
	if len(s) > maxLabel+utf8.UTFMax { // enough to cut from, and to see a rune's end
		s = s[:maxLabel+utf8.UTFMax]
	}
	var b strings.Builder
	for _, r := range s { // a bad byte is U+FFFD
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return cut(b.String(), maxLabel)
}

func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// cut shortens valid UTF-8 to at most n bytes, between runes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// nsID names a namespace over the passes. An inode alone is given to the next
// namespace at once.
type nsID struct {
	inode, cookie uint64
	name          string
}

// nsKey is an nsID that compares fast.
type nsKey = unique.Handle[nsID]

func identify(ns *snapshot.Namespace) nsKey {
	return unique.Make(nsID{ns.Inode, ns.Cookie, clean(ns.Name)})
}

// own tells the namespaces whose names are twwatch's own words, so that a
// namespace that somebody calls "host" doesn't rename the host.
func own(ns *snapshot.Namespace) bool { return ns.Kind == "host" || ns.Kind == "self" }

// netnsLabels gives each namespace a label of its own: its name, with
// "@inode" where several bear it. Namespaces must be distinct by identify.
func netnsLabels(all []*snapshot.Namespace) map[nsKey]string {
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(a, b *snapshot.Namespace) int {
		return cmp.Or(-compareBool(own(a), own(b)), cmp.Compare(a.Inode, b.Inode), cmp.Compare(a.Cookie, b.Cookie))
	})
	bearers := make(map[string]int, len(order))
	for _, ns := range order {
		if !own(ns) {
			bearers[clean(ns.Name)]++
		}
	}
	labels := make(map[nsKey]string, len(order))
	taken := make(map[string]bool, len(order))
	give := func(ns *snapshot.Namespace, label string) {
		for n := 1; taken[label]; n++ { // only where inodes repeat, or a name looks like ours
			suffix := "@" + strconv.FormatUint(ns.Inode, 10)
			if n > 1 {
				suffix += "." + strconv.Itoa(n)
			}
			label = cut(clean(ns.Name), maxLabel-len(suffix)) + suffix
		}
		taken[label] = true
		labels[identify(ns)] = label
	}
	var shared []*snapshot.Namespace
	for _, ns := range order {
		name := clean(ns.Name)
		if name == "" || taken[name] || !own(ns) && bearers[name] > 1 {
			shared = append(shared, ns)
			continue
		}
		give(ns, name)
	}
	for _, ns := range shared {
		suffix := "@" + strconv.FormatUint(ns.Inode, 10)
		give(ns, cut(clean(ns.Name), maxLabel-len(suffix))+suffix)
	}
	return labels
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// maxDevice bounds a device's name, so that it fits in a label behind any
// address. The kernel's are of 15 bytes at most.
const maxDevice = 64

// parseAddress reads one address, false for anything else: a prefix, or no
// address at all. Its zone comes off, to stand as the flow's device.
func parseAddress(s string) (a netip.Addr, device string, ok bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, "", false
	}
	return a.Unmap().WithZone(""), a.Zone(), true
}

// localLabel is the label of a flow's own address. A device that it is bound to
// follows after "%", as ss writes it, since it makes another flow of the same
// addresses.
func (k *flowKey) localLabel() string {
	if k.device == "" {
		return k.local.String()
	}
	return k.local.String() + "%" + k.device
}

// remoteLabel is empty for a server flow that sums its remotes.
func (k *flowKey) remoteLabel() string {
	if !k.remote.IsValid() {
		return ""
	}
	return k.remote.String()
}
