package top

import (
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// Bounds of what is kept to step back in. Bytes are estimates.
const (
	liveReports   = 900
	liveBytes     = 32 << 20
	recordedBytes = 192 << 20
)

// A history keeps reports, oldest first. Of a live source it forgets the
// oldest. Of a recording it keeps every stride-th, evenly over the whole length,
// and always the last: a longer one is seen coarser, not cut off.
type history struct {
	recorded bool
	limit    int // bytes
	most     int // reports; 0: no limit
	reports  []*snapshot.Report
	bytes    int
	seen     int
	stride   int
	spare    bool // the last report is kept only for being the last
}

func newHistory(recorded bool) history {
	if recorded {
		return history{recorded: true, limit: recordedBytes, stride: 1}
	}
	return history{limit: liveBytes, most: liveReports, stride: 1}
}

// add keeps a report, and forgets others where there are too many.
func (h *history) add(r *snapshot.Report) {
	if h.spare {
		h.drop(len(h.reports)-1, len(h.reports))
	}
	h.spare = h.seen%h.stride != 0
	h.seen++
	h.reports = append(h.reports, r)
	h.bytes += weight(r)
	if h.recorded {
		for h.bytes > h.limit && len(h.reports) > 2 {
			h.thin()
		}
		return
	}
	first := 0
	for bytes := h.bytes; first < len(h.reports)-1 && (bytes > h.limit || h.most > 0 && len(h.reports)-first > h.most); first++ {
		bytes -= weight(h.reports[first])
	}
	h.drop(0, first)
}

func (h *history) drop(from, to int) {
	for _, r := range h.reports[from:to] {
		h.bytes -= weight(r)
	}
	h.reports = slices.Delete(h.reports, from, to)
}

// thin keeps every second report, and the last.
func (h *history) thin() {
	kept := h.reports[:0]
	last := h.reports[len(h.reports)-1]
	h.bytes = 0
	for i, r := range h.reports {
		if i%2 == 0 || r == last {
			kept = append(kept, r)
			h.bytes += weight(r)
		}
	}
	h.spare = (len(h.reports)-1)%2 != 0 || h.spare
	clear(h.reports[len(kept):])
	h.reports = kept
	h.stride *= 2
}

// index is where a report is, −1 if it is no longer kept.
func (h *history) index(r *snapshot.Report) int { return slices.Index(h.reports, r) }

// nearest is the first kept report that is not older than r, or else the last.
func (h *history) nearest(r *snapshot.Report) *snapshot.Report {
	for _, kept := range h.reports {
		if !kept.Time.Before(r.Time) {
			return kept
		}
	}
	return h.reports[len(h.reports)-1]
}

// weight estimates a report's bytes.
func weight(r *snapshot.Report) int {
	n := 4<<10 + 2<<10*len(r.Findings)
	for _, ns := range r.Namespaces {
		n += 8<<10 + 640*len(ns.Flows) + 256*(len(ns.CloseWaits)+len(ns.Sockets)+len(ns.Listeners)+len(ns.Owners))
	}
	return n
}
