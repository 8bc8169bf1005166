package snapshot

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// FlowID is a short name for a flow of a namespace: 16 hexadecimal digits, the
// same in every report that the same namespace and flow are in. It is made of
// what tells flows apart and stored nowhere. Two flows of one report share an
// ID only if somebody makes them on purpose.
func FlowID(n *Namespace, f *Flow) string {
	h := fnv.New64a()
	for _, part := range []string{
		n.Name, strconv.FormatUint(n.Inode, 10), string(f.Side), f.Device, f.Local, f.Remote, strconv.Itoa(int(f.Port)),
	} {
		// As a reader of the encoded report sees it.
		_, _ = h.Write([]byte(strings.ToValidUTF8(part, "\uFFFD"))) // a hash takes everything
		_, _ = h.Write([]byte{0})
	}
	return fmt.Sprintf("%016x", h.Sum64())
}
