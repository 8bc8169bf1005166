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
)

// Window returns the kept frames, oldest first, the newest last. The newest
// two are whole. Of the older ones each namespace keeps its first 100 flows,
// without their timelines and processes, and no single CLOSE_WAIT rows; what
// was cut is in Omitted, so that sums still close. (Forty whole reports of a
// host with a thousand flows would be 40 MB.) The slice is the caller's, the
// frames are shared.
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
// stays as it is.
func trim(r *snapshot.Report) *snapshot.Report {
	t := *r
	t.Namespaces = make([]*snapshot.Namespace, len(r.Namespaces))
	for i, ns := range r.Namespaces {
		if ns != nil {
			t.Namespaces[i] = trimNamespace(ns)
		}
	}
	return &t
}

func trimNamespace(ns *snapshot.Namespace) *snapshot.Namespace {
	n := *ns
	n.CloseWaits, n.HalfOpen, n.Owners, n.Sockets, n.SocketsOf = nil, nil, nil, nil, nil
	kept := min(len(ns.Flows), trimmedTo)
	n.Flows = slices.Clone(ns.Flows[:kept])
	for i := range n.Flows {
		n.Flows[i].OpenedPerSecond, n.Flows[i].Processes = nil, nil
	}
	for i := range ns.Flows[kept:] {
		f := &ns.Flows[kept+i]
		n.Omitted.States.Add(&f.States)
		n.Omitted.Births += f.Births
		n.Omitted.Flows++
	}
	return &n
}
