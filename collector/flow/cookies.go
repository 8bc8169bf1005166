package flow

import (
	"math/bits"
	"math/rand/v2"
)

const (
	// MaxCookies is how many connections a [Memory] remembers, in 4 MiB, and 6
	// while it grows to them.
	MaxCookies = 1 << 17
	// longLivedMS is how long before a look another one must have seen a
	// connection that is called long-lived.
	longLivedMS = 500
	// slackMS is what a TIME_WAIT is allowed beyond its time: the timer wheel's
	// 4.1 s at HZ=1000, and what passes take.
	slackMS = 6000

	fewCookies = 1 << 9
)

// cookieSlot is what is remembered of a connection by its cookie.
type cookieSlot struct {
	cookie  uint64 // 0 is an empty slot
	seen    uint32 // ms on the pass's clock, modulo 2³²: when it was last seen alive
	process uint16 // 0: unknown
	lived   uint16 // ms between the first look that saw it and the last; saturates
}

// cookies remembers connections that were seen while they lived. A TIME_WAIT has no
// inode and so no process; but it keeps the cookie of the connection that it
// comes from (inet_twsk_alloc, net/ipv4/inet_timewait_sock.c), and a cookie is
// never used again. It is open addressing, half full at most, without
// pointers. The kernel gives cookies out in turn, so the hash is seeded: nobody
// can choose those that collide.
type cookies struct {
	slots   []cookieSlot // a power of two, or none
	count   int
	shift   uint // a hash's upper bits are its place
	seed    uint64
	refused bool   // there was no room for one since the last sweep
	swept   uint32 // ms: when; 0 before the first
}

// place is where the search for a cookie begins; there must be slots.
func (c *cookies) place(cookie uint64) uint64 {
	return mix(cookie^c.seed, 0x9e3779b97f4a7c15) >> c.shift
}

// find gives a cookie's slot, nil if it has none. It is valid until the next
// see or sweep. There must be slots.
func (c *cookies) find(cookie uint64) *cookieSlot {
	if i, ok := c.at(cookie, uint32(c.place(cookie))); ok {
		return &c.slots[i]
	}
	return nil
}

// at finds a cookie's slot from its place on.
func (c *cookies) at(cookie uint64, place uint32) (uint32, bool) {
	for mask := uint32(len(c.slots) - 1); ; place = (place + 1) & mask {
		switch c.slots[place].cookie {
		case 0:
			return 0, false
		case cookie:
			return place, true
		}
	}
}

// see notes a live connection, with the process that holds it, if that is
// known; place is where it was found before, if it was. It returns the process
// that is now remembered, and whether another look saw the connection at least
// longLivedMS before. With no room for a new one it isn't kept.
func (c *cookies) see(cookie uint64, place uint32, process uint16, now uint32) (remembered uint16, longLived bool) {
	if cookie == 0 { // from /proc/net/tcp
		return process, false
	}
	var s *cookieSlot
	switch {
	case int(place) < len(c.slots) && c.slots[place].cookie == cookie:
		s = &c.slots[place]
	case len(c.slots) > 0:
		s = c.find(cookie)
	}
	if s == nil {
		if c.count == MaxCookies {
			c.refused = true
			return process, false
		}
		c.add(cookieSlot{cookie: cookie, process: process, seen: now})
		return process, false
	}
	if process != 0 {
		s.process = process
	}
	if passed := int32(now - s.seen); passed > 0 {
		s.lived = uint16(min(uint32(s.lived)+uint32(passed), 1<<16-1))
		s.seen = now
	}
	return s.process, s.lived >= longLivedMS
}

func (c *cookies) add(s cookieSlot) {
	if 2*(c.count+1) > len(c.slots) {
		c.rebuild(max(fewCookies, 2*len(c.slots)))
	}
	c.put(s)
	c.count++
}

func (c *cookies) put(s cookieSlot) {
	mask := uint64(len(c.slots) - 1)
	at := c.place(s.cookie)
	for c.slots[at].cookie != 0 {
		at = (at + 1) & mask
	}
	c.slots[at] = s
}

func (c *cookies) rebuild(size int) {
	if c.seed == 0 {
		c.seed = rand.Uint64() | 1
	}
	old := c.slots
	c.slots, c.shift = make([]cookieSlot, size), uint(64-bits.TrailingZeros(uint(size)))
	for i := range old {
		if old[i].cookie != 0 {
			c.put(old[i])
		}
	}
}

// sweep forgets what was last seen alive more than keep ms ago, and gives
// memory back that isn't needed any more.
func (c *cookies) sweep(now, keep uint32) {
	c.swept, c.refused = max(now, 1), false
	mask := len(c.slots) - 1
	for at := 0; at < len(c.slots); {
		s := &c.slots[at]
		if s.cookie == 0 || int32(now-s.seen) <= int32(keep) {
			at++
			continue
		}
		c.remove(at, mask)
		c.count-- // and look again: another may have moved here
	}
	size := len(c.slots)
	for size > fewCookies && 8*c.count < size {
		size /= 2
	}
	switch {
	case c.count == 0:
		c.slots = nil
	case size < len(c.slots):
		c.rebuild(size)
	}
}

// remove empties a slot, and moves up those that the search would miss now.
func (c *cookies) remove(at, mask int) {
	for next := (at + 1) & mask; c.slots[next].cookie != 0; next = (next + 1) & mask {
		home := int(c.place(c.slots[next].cookie))
		if (next-home)&mask >= (next-at)&mask {
			c.slots[at] = c.slots[next]
			at = next
		}
	}
	c.slots[at] = cookieSlot{}
}

// Processes yields the numbers of the processes of the connections remembered,
// some of them many times.
func (m *Memory) Processes(yield func(process uint16) bool) {
	for i := range m.cookies.slots {
		if p := m.cookies.slots[i].process; p != 0 && !yield(p) {
			return
		}
	}
}

// Connections is how many connections are remembered.
func (m *Memory) Connections() int { return m.cookies.count }
