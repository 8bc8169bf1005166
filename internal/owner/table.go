package owner

import "math/rand/v2"

// What a slot's owner can be, beside the index of a process.
const (
	ownerPending = ^uint32(0)     // looked for
	ownerFailed  = ^uint32(0) - 1 // given up
	ownerNone    = ownerFailed    // from here on it isn't a process
)

// A slot is what is known of one inode.
type slot struct {
	inode uint32 // 0 is an empty slot
	owner uint32 // an index into people.all, ownerPending or ownerFailed
	// aux is the descriptor if it has an owner; if it is looked for, the
	// number of the sweep that was the last begun when it was first wanted; if
	// given up, the pass of that.
	aux   uint32
	used  uint32 // the pass that last wanted it, or saw it first
	asked bool   // it was ever wanted
}

// inodes is a bounded table from inode to slot: open addressing without
// pointers, since steady passes do little but look up.
type inodes struct {
	slots []slot // a power of two, at most three quarters full
	count int
	max   int
	full  int // the count at which stale slots are to be dropped
	seed  uint64
}

const leastSlots = 1 << 9

func newInodes(limit int) inodes {
	return inodes{max: limit, full: min(limit, leastSlots/2), seed: rand.Uint64()}
}

// place is where an inode's search begins. The numbers can be steered by
// whoever opens many sockets, so the hash is seeded.
func (t *inodes) place(inode uint32) uint32 {
	h := (uint64(inode) ^ t.seed) * 0x9e3779b97f4a7c15
	h ^= h >> 29
	h *= 0xbf58476d1ce4e5b9
	return uint32(h>>32) & uint32(len(t.slots)-1)
}

// at returns an inode's slot, nil if it has none. It is valid until the next
// add or keep.
func (t *inodes) at(inode uint32) *slot {
	if len(t.slots) == 0 || inode == 0 {
		return nil
	}
	for i := t.place(inode); ; i = (i + 1) & uint32(len(t.slots)-1) {
		switch t.slots[i].inode {
		case inode:
			return &t.slots[i]
		case 0:
			return nil
		}
	}
}

// add returns a new slot for an inode that has none, nil if there is no room.
// It makes pointers to other slots invalid.
func (t *inodes) add(inode uint32) *slot {
	if t.count >= t.max {
		return nil
	}
	if (t.count+1)*4 > len(t.slots)*3 {
		t.rebuild(max(leastSlots, 2*len(t.slots)))
	}
	t.count++
	return t.put(slot{inode: inode})
}

func (t *inodes) put(s slot) *slot {
	i := t.place(s.inode)
	for t.slots[i].inode != 0 {
		i = (i + 1) & uint32(len(t.slots)-1)
	}
	t.slots[i] = s
	return &t.slots[i]
}

// keep drops the slots that aren't to stay, and gives memory back that isn't
// needed any more.
func (t *inodes) keep(stay func(*slot) bool) {
	n := 0
	for i := range t.slots {
		if t.slots[i].inode != 0 && stay(&t.slots[i]) {
			n++
		} else {
			t.slots[i].inode = 0
		}
	}
	size := leastSlots
	for (n+1)*2 > size {
		size *= 2
	}
	t.rebuild(min(size, max(len(t.slots), leastSlots)))
	t.full = min(t.max, max(leastSlots/2, 2*n))
}

func (t *inodes) rebuild(size int) {
	old := t.slots
	t.slots, t.count = make([]slot, size), 0
	for i := range old {
		if old[i].inode != 0 {
			t.put(old[i])
			t.count++
		}
	}
}

// all calls f for each slot.
func (t *inodes) all(f func(*slot)) {
	for i := range t.slots {
		if t.slots[i].inode != 0 {
			f(&t.slots[i])
		}
	}
}
