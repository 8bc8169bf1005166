package exporter

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// maxProcesses bounds the label sets of CLOSE_WAIT by process.
	maxProcesses = 8
	// holdsMany CLOSE_WAIT sockets give a process series: a few come and go
	// with any program.
	holdsMany = 10
)

// processes tells CLOSE_WAIT sockets by the name of the process that holds
// them. A name that has series keeps them until it has held none for an hour,
// so that programs which rename themselves make few.
type processes struct {
	shown  map[string]*holder
	others float64 // CLOSE_WAIT sockets of no process that is shown
}

// holder is all processes of one name, in this frame.
type holder struct {
	sockets float64
	oldest  age
	held    time.Duration // on the Exporter's clock: when it last held one
}

func (p *processes) observe(now time.Duration, scenes []*scene) {
	holders := make(map[string]*holder)
	of := func(comm string) *holder {
		name := clean(comm)
		if holders[name] == nil {
			holders[name] = &holder{held: now}
		}
		return holders[name]
	}
	all := 0.0
	for _, s := range scenes {
		all += float64(s.ns.States.CloseWait)
		for i := range s.ns.Owners {
			if o := &s.ns.Owners[i]; o.CloseWait > 0 && o.Comm != "" {
				of(o.Comm).sockets += float64(o.CloseWait)
			}
		}
		for i := range s.ns.CloseWaits {
			if w := &s.ns.CloseWaits[i]; w.Comm != "" {
				of(w.Comm).oldest.take(w.AgeSeconds)
			}
		}
	}
	for name, before := range p.shown {
		if h := holders[name]; h != nil && h.sockets > 0 {
			p.shown[name] = h
		} else if now-before.held < hour {
			p.shown[name] = &holder{held: before.held}
		} else {
			delete(p.shown, name)
		}
	}
	// Those with the most sockets enter first.
	enter := slices.SortedFunc(maps.Keys(holders), func(a, b string) int {
		return cmp.Or(cmp.Compare(holders[b].sockets, holders[a].sockets), strings.Compare(a, b))
	})
	for _, name := range enter {
		if len(p.shown) < maxProcesses && holders[name].sockets >= holdsMany {
			p.shown[name] = holders[name]
		}
	}
	p.others = all
	for _, h := range p.shown {
		p.others -= h.sockets
	}
	p.others = max(0, p.others)
}

func (e *Exporter) renderProcesses(v *view) {
	f := e.families
	for _, name := range slices.Sorted(maps.Keys(e.holders.shown)) {
		h := e.holders.shown[name]
		v.put(f.closeWaitProcess, h.sockets, name)
		if h.oldest.known {
			v.put(f.closeWaitProcessOldest, h.oldest.seconds, name)
		}
	}
	v.put(f.closeWaitProcess, e.holders.others, "")
}
