package exporter

import (
	"cmp"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const (
	// maxProtocols bounds the label sets of births by protocol, and
	// maxCandidates what is remembered of those that aren't exported yet.
	maxProtocols  = 20
	maxCandidates = 256
	// enough births make a protocol one of the host's: a scan of every port
	// that is some service's makes none.
	enough = 100
)

// protocolKey is a known service, and the end of it that the host is.
type protocolKey struct {
	side     snapshot.Side
	protocol string // clean, not empty
}

// protocols counts births by the service they are of. Each birth is counted
// once: as its protocol's from when that has series on, before and else as one
// of the others. A protocol that has series keeps them.
type protocols struct {
	shown      map[protocolKey]uint64
	candidates map[protocolKey]uint64
	others     uint64
}

func newProtocols() protocols {
	return protocols{shown: make(map[protocolKey]uint64), candidates: make(map[protocolKey]uint64)}
}

func (p *protocols) count(s *scene) {
	known := uint64(0)
	for _, k := range sortedProtocols(s.births) {
		n := s.births[k]
		if _, ok := p.shown[k]; ok {
			p.shown[k] += n
			known += n
			continue
		}
		if _, ok := p.candidates[k]; !ok && len(p.candidates) >= maxCandidates {
			continue
		}
		p.candidates[k] += n
		if p.candidates[k] >= enough && len(p.shown) < maxProtocols {
			p.shown[k] = 0
			delete(p.candidates, k)
		}
	}
	if all := s.ns.TimeWait.Births; all > known {
		p.others += all - known
	}
}

func sortedProtocols(m map[protocolKey]uint64) []protocolKey {
	keys := make([]protocolKey, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b protocolKey) int {
		return cmp.Or(strings.Compare(a.protocol, b.protocol), cmp.Compare(a.side, b.side))
	})
	return keys
}

func (e *Exporter) renderProtocols(v *view) {
	for _, k := range sortedProtocols(e.known.shown) {
		v.put(e.families.protocolOpened, float64(e.known.shown[k]), string(k.side), k.protocol)
	}
	v.put(e.families.protocolOpened, float64(e.known.others), "", "")
}
