package collector

import (
	"context"
	"runtime"
	"time"

	"github.com/twwatch/twwatch/collector/flow"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/inetdiag"
	"github.com/twwatch/twwatch/internal/owner"
)

// fewSockets is below how many sockets a look that lasts begins with a dump of
// those that live, so that it knows at its end whose TIME_WAIT sockets are
// there and which connections last.
const fewSockets = 50_000

// glance looks at the sockets that live, between two passes: connections that
// won't last until the next one are remembered with their processes, and so
// their TIME_WAIT sockets get an owner. TIME_WAIT rows, most of a table where
// connections are short, are not asked for; what is left costs the kernel's
// walk, the live rows and a search as bounded as a pass's.
//
// What fails is not told: the next pass meets it too.
func (c sight) glance(ctx context.Context) {
	if c.cfg.WithoutOwners {
		return
	}
	runtime.LockOSThread() // its CPU time is the glance's
	defer runtime.UnlockOSThread()
	cpu := threadCPU()
	c.table.Glance(inetdiag.Now(), &c.memory)
	_, err := c.walk(ctx, inetdiag.Query{States: liveStates()}, c.table.AddGlance)
	live := c.table.Glanced(err == nil)
	c.findGlanced(ctx, live)
	for i := range live {
		c.table.See(&live[i], c.number(live[i].Inode, live[i].Known))
	}
	c.glances.Count++
	c.glances.CPUSeconds += (threadCPU() - cpu).Seconds()
}

// liveStates are those that a socket with a process can have, but for LISTEN.
func liveStates() inetdiag.States {
	return inetdiag.AllStates &^ inetdiag.StatesOf(inetdiag.TimeWait, inetdiag.Listen, inetdiag.SynRecv, inetdiag.NewSynRecv, inetdiag.Close)
}

// findGlanced searches first where the last pass found most sockets.
func (c sight) findGlanced(ctx context.Context, live []flow.Live) {
	o := &c.owners
	o.wants, o.hints = o.wants[:0], o.hints[:0]
	for i := range live {
		o.wants = append(o.wants, owner.Want{Inode: live[i].Inode, Cgroup: live[i].Cgroup})
	}
	if len(o.wants) == 0 {
		return
	}
	for _, n := range o.counted[:min(len(o.counted), maxHints)] {
		if q := c.ledger.Processes.At(n); q != nil {
			o.hints = append(o.hints, q.PID)
		}
	}
	_, r := o.finder.Find(ctx, o.wants, o.hints)
	o.searched, o.scanned = true, o.scanned || r.Pending == 0 || r.Swept
}

// takeGlances is what the glances since the last report cost; nil if there were
// none.
func (c *Collector) takeGlances() *snapshot.LiveDumps {
	if c.glances.Count == 0 {
		return nil
	}
	g := c.glances
	c.glances = snapshot.LiveDumps{}
	return &g
}

// wait waits until a time, with a glance every so often. It is false if ctx
// ended before.
func (c *Collector) wait(ctx context.Context, until time.Time) bool {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := time.Now(); ; {
		if next = next.Add(c.cfg.LiveEvery); time.Until(next) < 0 {
			next = time.Now() // glances that took too long aren't made up for
		}
		glance := c.cfg.LiveEvery > 0 && next.Before(until)
		wake := until
		if glance {
			wake = next
		}
		timer.Reset(max(0, time.Until(wake)))
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		}
		if !glance {
			return true
		}
		sight{c, c.home}.glance(ctx)
	}
}
