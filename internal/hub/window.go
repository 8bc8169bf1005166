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

// keep adds a frame and trims the one that is whole no longer; h.mu is held.
func (h *Hub) keep(r *snapshot.Report) {
	if len(h.window) >= h.cfg.Keep {
		n := copy(h.window, h.window[len(h.window)-h.cfg.Keep+1:])
		clear(h.window[n:])
		h.window = h.window[:n]
	}
	h.window = append(h.window, r)
	if i := len(h.window) - 1 - full; i >= 0 {
		h.window[i] = trim(h.window[i])
	}
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
	n.CloseWaits = nil
	kept := min(len(ns.Flows), trimmedTo)
	n.Flows = slices.Clone(ns.Flows[:kept])
	for i := range n.Flows {
		n.Flows[i].OpenedPerSecond, n.Flows[i].Processes = nil, nil
	}
	for i := range ns.Flows[kept:] {
		f := &ns.Flows[kept+i]
		add(&n.Omitted.States, &f.States)
		n.Omitted.Births += f.Births
		n.Omitted.Flows++
	}
	return &n
}

func add(s, o *snapshot.States) {
	s.Established += o.Established
	s.SynSent += o.SynSent
	s.SynRecv += o.SynRecv
	s.FinWait1 += o.FinWait1
	s.FinWait2 += o.FinWait2
	s.TimeWait += o.TimeWait
	s.Close += o.Close
	s.CloseWait += o.CloseWait
	s.LastAck += o.LastAck
	s.Listen += o.Listen
	s.Closing += o.Closing
}
