package flow

import (
	"math/rand/v2"
	"testing"
)

// model is what a map would do.
type model map[uint64]cookieSlot

func (m model) see(cookie uint64, process uint16, now uint32) (uint16, bool) {
	s, ok := m[cookie]
	if !ok {
		m[cookie] = cookieSlot{cookie: cookie, process: process, seen: now}
		return process, false
	}
	if process != 0 {
		s.process = process
	}
	if now > s.seen {
		s.lived = uint16(min(int(s.lived)+int(now-s.seen), 1<<16-1))
		s.seen = now
	}
	m[cookie] = s
	return s.process, s.lived >= longLivedMS
}

func TestCookiesAreAMap(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var c cookies
		want, now, next := model{}, uint32(1000), uint64(1)
		for range 40 {
			now += uint32(rng.IntN(400))
			for range rng.IntN(400) { // new ones, in turn as the kernel gives them
				p := uint16(rng.IntN(5))
				c.see(next, 0, p, now)
				want.see(next, p, now)
				next++
			}
			for range rng.IntN(400) {
				cookie, p := rng.Uint64N(next)+1, uint16(rng.IntN(3))
				place := uint32(rng.Uint32N(2000)) // a place from before may be any
				gotP, gotL := c.see(cookie, place, p, now)
				wantP, wantL := want.see(cookie, p, now)
				if gotP != wantP || gotL != wantL {
					t.Fatalf("seed %d: see(%d) = %d, %v, want %d, %v", seed, cookie, gotP, gotL, wantP, wantL)
				}
				next = max(next, cookie+1)
			}
			if rng.IntN(3) == 0 {
				keep := uint32(rng.IntN(1500))
				c.sweep(now, keep)
				for cookie, s := range want {
					if now-s.seen > keep {
						delete(want, cookie)
					}
				}
			}
			checkCookies(t, &c, want, next)
		}
	}
}

func checkCookies(t *testing.T, c *cookies, want model, next uint64) {
	t.Helper()
	if c.count != len(want) || 2*c.count > len(c.slots) || len(want) == 0 && len(c.slots) > fewCookies {
		t.Fatalf("%d connections in %d slots, want %d", c.count, len(c.slots), len(want))
	}
	for cookie := uint64(1); cookie < next && len(c.slots) > 0; cookie++ {
		s, ok := want[cookie]
		got := c.find(cookie)
		if ok != (got != nil) || ok && *got != s {
			t.Fatalf("cookie %d: %+v, want %+v", cookie, got, s)
		}
	}
}

// The memory is bounded: beyond it new connections are refused, known ones are
// still seen, and a sweep makes room.
func TestCookiesAreBounded(t *testing.T) {
	var c cookies
	for cookie := uint64(1); cookie <= MaxCookies+1000; cookie++ {
		c.see(cookie, 0, 7, 1000)
	}
	if c.count != MaxCookies || len(c.slots) != 2*MaxCookies || !c.refused {
		t.Fatalf("%d connections in %d slots, refused %v", c.count, len(c.slots), c.refused)
	}
	if p, long := c.see(5, 0, 0, 2000); p != 7 || !long {
		t.Errorf("a known connection: %d, %v", p, long)
	}
	if p, long := c.see(MaxCookies+5, 0, 9, 2000); p != 9 || long || c.find(MaxCookies+5) != nil {
		t.Errorf("a new connection: %d, %v", p, long)
	}
	c.sweep(62_000, 60_500)
	if c.count != 1 || len(c.slots) != fewCookies || c.refused || c.find(5) == nil {
		t.Errorf("after a sweep %d connections in %d slots", c.count, len(c.slots))
	}
	c.sweep(1<<31, 1)
	if c.count != 0 || c.slots != nil {
		t.Errorf("after all have gone %d connections in %d slots", c.count, len(c.slots))
	}
}

// Times go round after 49 days.
func TestCookiesTimesGoRound(t *testing.T) {
	var c cookies
	const before = 1<<32 - 300
	c.see(1, 0, 7, before)
	if _, long := c.see(1, 0, 7, 199); long { // 499 ms later
		t.Error("long-lived after 499 ms")
	}
	if _, long := c.see(1, 0, 7, 200); !long {
		t.Error("not long-lived after 500 ms")
	}
	c.see(2, 0, 7, before)
	c.sweep(1000, 1000)
	if c.find(1) == nil || c.find(2) != nil {
		t.Error("the wrong connection was forgotten")
	}
}
