package hub

import (
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const (
	// full frames of the window are kept as they came, for differences of
	// neighbours; the others are trimmed to the flows nearest to trouble.
	full      = 2
	trimmedTo = 100
	// trimmedLeast is how many flows of a namespace are kept beside however
	// many others.
	trimmedLeast = 4
)

// Window returns the kept frames, oldest first, the newest last. The newest
// two are whole. Of the older ones the first namespace keeps its first 100 flows,
// and as many all others together (4 at least each), without their timelines and
// processes, and no single CLOSE_WAIT rows; what was cut is in Omitted, so that
// sums still close. Further namespaces that a report only repeats are not in it.
// (Forty whole reports of a host with a thousand flows would be 40 MB.) The slice
// is the caller's, the frames are shared.
func (h *Hub) Window() []*snapshot.Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.window)
}

// keep adds a frame; h.mu is held.
func (h *Hub) keep(r *snapshot.Report) { h.window = Keep(h.window, r, h.cfg.Keep) }

// Keep adds a report to a window of at most so many, oldest first, and trims the
// one that is whole no longer: see [Hub.Window]. It changes window, and returns
// it as it is now.
func Keep(window []*snapshot.Report, r *snapshot.Report, most int) []*snapshot.Report {
	if len(window) >= most {
		n := copy(window, window[len(window)-most+1:])
		clear(window[n:])
		window = window[:n]
	}
	window = append(window, r)
	if i := len(window) - 1 - full; i >= 0 {
		window[i] = trim(window[i])
	}
	return window
}

// trim returns a smaller copy of a frame; the frame itself is shared and
// stays as it is. Beside the first namespace, those go that had not been read
// anew, and the rest share the room of one.
func trim(r *snapshot.Report) *snapshot.Report {
	t := *r
	t.Namespaces = make([]*snapshot.Namespace, 0, len(r.Namespaces))
	others := max(1, len(r.Namespaces)-1)
	for i, ns := range r.Namespaces {
		switch {
		case ns == nil:
		case i == 0:
			t.Namespaces = append(t.Namespaces, trimNamespace(ns, trimmedTo))
		case !ns.Repeated:
			t.Namespaces = append(t.Namespaces, trimNamespace(ns, max(trimmedLeast, trimmedTo/others)))
		}
	}
	return &t
}

func trimNamespace(ns *snapshot.Namespace, flows int) *snapshot.Namespace {
	n := ns.Cut(snapshot.Bounds{Flows: flows, Listeners: len(ns.Listeners)})
	n.Sockets, n.SocketsOf = nil, nil
	n.Flows = slices.Clone(n.Flows)
	for i := range n.Flows {
		n.Flows[i].OpenedPerSecond, n.Flows[i].Processes = nil, nil
	}
	return n
}
