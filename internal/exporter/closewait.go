package exporter

import "github.com/twwatch/twwatch/collector/snapshot"

func (e *Exporter) renderCloseWait(v *view, s *scene) {
	f := e.families
	for _, k := range closeWaitKinds(s.ns) {
		v.put(f.closeWait, k.value, s.label, k.name)
	}
	if oldest, ok := oldestCloseWait(s.ns); ok {
		v.put(f.closeWaitOldest, oldest, s.label)
	}
	if oldest, ok := oldestEOFRead(s.ns); ok {
		v.put(f.closeWaitEOFOldest, oldest, s.label)
	}
	if used := descriptorsUsed(s.ns); used != nil {
		v.put(f.closeWaitDescriptors, *used, s.label)
	}
}

// closeWaitKinds parts a namespace's CLOSE_WAIT sockets. With every row at
// hand each socket is told by itself; else the flows' sums are taken, which
// count an unaccepted socket with data in both, so that unread is a floor. A
// socket that no accept() took has its FIN unread, so eof_read is in neither.
func closeWaitKinds(ns *snapshot.Namespace) []feature {
	all := float64(ns.States.CloseWait)
	var eofRead, unaccepted, unread float64
	if len(ns.CloseWaits) == int(ns.States.CloseWait) {
		for i := range ns.CloseWaits {
			switch w := &ns.CloseWaits[i]; {
			case w.Inode == 0:
				unaccepted++
			case w.RecvQ > 1: // the FIN counts 1
				unread++
			case w.RecvQ == 0:
				eofRead++
			}
		}
	} else {
		for i := range ns.Flows {
			c := &ns.Flows[i].CloseWait
			eofRead += float64(c.EOFRead)
			unaccepted += float64(c.Unaccepted)
			unread += float64(c.Unread) - float64(min(c.Unread, c.Unaccepted))
		}
		eofRead = min(eofRead, all)
		unaccepted = min(unaccepted, all-eofRead)
		unread = min(unread, all-eofRead-unaccepted)
	}
	return []feature{
		{"eof_read", eofRead},
		{"other", all - eofRead - unaccepted - unread},
		{"unaccepted", unaccepted},
		{"unread", unread},
	}
}

// An age is the greatest of those known.
type age struct {
	seconds float64
	known   bool
}

func (a *age) take(s *float64) {
	if s != nil && usable(*s) && *s >= 0 {
		a.seconds, a.known = max(a.seconds, *s), true
	}
}

func oldestCloseWait(ns *snapshot.Namespace) (oldest float64, ok bool) {
	var a age
	for i := range ns.CloseWaits {
		a.take(ns.CloseWaits[i].AgeSeconds)
	}
	for i := range ns.Flows {
		a.take(ns.Flows[i].CloseWait.OldestSeconds)
	}
	return a.seconds, a.known
}

func oldestEOFRead(ns *snapshot.Namespace) (oldest float64, ok bool) {
	var a age
	for i := range ns.CloseWaits {
		if w := &ns.CloseWaits[i]; w.RecvQ == 0 && w.Inode != 0 {
			a.take(w.AgeSeconds)
		}
	}
	return a.seconds, a.known
}

// descriptorsUsed is the greatest share of its open-file limit that a process
// with CLOSE_WAIT sockets has used; nil if there are such sockets and no such
// process is known.
func descriptorsUsed(ns *snapshot.Namespace) *float64 {
	var most *float64
	if ns.States.CloseWait == 0 {
		most = new(float64)
	}
	for i := range ns.Owners {
		o := &ns.Owners[i]
		if o.CloseWait == 0 || o.Descriptors == nil || o.DescriptorLimit == nil || *o.Descriptors < 0 || *o.DescriptorLimit <= 0 {
			continue
		}
		used := float64(*o.Descriptors) / float64(*o.DescriptorLimit)
		if most == nil || used > *most {
			most = &used
		}
	}
	return most
}
