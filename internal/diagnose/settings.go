package diagnose

import (
	"fmt"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/sysctl"
)

// Findings about settings. They are info, and of no weight for the verdict,
// unless the setting limits something now.
const (
	ReuseNoTimestamps = "tw-reuse-without-timestamps"
	BucketsLowered    = "tw-buckets-lowered"
	RecycleOn         = "tw-recycle-on"
	FinTimeoutMyth    = "fin-timeout-myth"
	RangeParity       = "port-range-parity"
)

func settingRules() []rule {
	lacking := func(fields ...func(*sysctl.Limits) *int) func(*scene) bool {
		return func(s *scene) bool {
			for _, f := range fields {
				if f(&s.ns.Limits) == nil {
					return true
				}
			}
			return false
		}
	}
	reuse := func(l *sysctl.Limits) *int { return l.TCPTWReuse }
	timestamps := func(l *sysctl.Limits) *int { return l.TCPTimestamps }
	buckets := func(l *sysctl.Limits) *int { return l.TCPMaxTWBuckets }
	entries := func(l *sysctl.Limits) *int { return l.TCPEhashEntries }
	timeout := func(l *sysctl.Limits) *int { return l.TCPFinTimeout }
	return []rule{
		{ids: []string{ReuseNoTimestamps}, judge: judgeReuse, silent: lacking(reuse, timestamps)},
		{ids: []string{BucketsLowered}, judge: judgeBucketsLowered, silent: lacking(buckets, entries)},
		{ids: []string{RecycleOn}, judge: judgeRecycle}, // where it can't be read the kernel has none
		{ids: []string{FinTimeoutMyth}, judge: judgeFinTimeout, silent: lacking(timeout)},
		{ids: []string{RangeParity}, judge: judgeParity, silent: func(s *scene) bool { return s.ns.Limits.IPLocalPortRange == nil }},
	}
}

// setting is a finding about one, with the situation to ask advice with.
func (s *scene) setting(id, pattern, summary string, evidence ...snapshot.Evidence) *found {
	return &found{
		Finding:    snapshot.Finding{ID: id, Severity: snapshot.Info, Summary: summary, Evidence: evidence},
		situations: []advice.Situation{s.situation(pattern, nil)},
	}
}

// isSet is the evidence of a setting: its value, and where it is.
func isSet(name string, value int, unit string) snapshot.Evidence {
	return snapshot.Evidence{What: name, Value: float64(value), Unit: unit, Source: "sysctl net.ipv4." + name}
}

func judgeReuse(s *scene) []*found {
	l := &s.ns.Limits
	if *l.TCPTWReuse != 1 || *l.TCPTimestamps != 0 {
		return nil
	}
	f := s.setting(ReuseNoTimestamps, advice.ReuseNoTimestamps,
		"tcp_tw_reuse is 1 and tcp_timestamps is 0: without timestamps the kernel reuses no TIME_WAIT",
		isSet("tcp_tw_reuse", 1, "setting"), isSet("tcp_timestamps", 0, "setting"))
	if tight := s.tightFlow(); tight != nil {
		f.Severity = snapshot.Warning
		all := tight.Ports.Range - tight.Ports.Reserved
		taken := all - tight.Ports.Free
		f.Summary += fmt.Sprintf(", and %s of %s ports to %s are taken", draw.Count(int64(taken)), draw.Count(int64(all)), destination([]*snapshot.Flow{tight}))
		f.Evidence = append(f.Evidence, snapshot.Evidence{What: "free ports of the tightest flow", Value: float64(tight.Ports.Free), Unit: "ports", Source: "inet_diag, ip_local_port_range"})
	}
	f.Summary += "."
	return []*found{f}
}

// tightFlow is the client flow with the fewest ports left, nil if each has
// plenty. TIME_WAIT must be among what takes them: nothing else is reused.
func (s *scene) tightFlow() *snapshot.Flow {
	tight := s.settings.Thresholds.of(portsSlow, s.warned(ReuseNoTimestamps))
	var worst *snapshot.Flow
	for i := range s.ns.Flows {
		f := &s.ns.Flows[i]
		p := f.Ports
		if f.Side != snapshot.Client || p == nil || p.Range <= p.Reserved || f.States.TimeWait == 0 {
			continue
		}
		if float64(p.Free) < (1-tight)*float64(p.Range-p.Reserved) && (worst == nil || p.Free < worst.Ports.Free) {
			worst = f
		}
	}
	return worst
}

// warned tells whether a setting limited something at the last judgement.
func (s *scene) warned(id string) bool {
	e := s.earlier(id, snapshot.Subject{})
	return e != nil && e.Severity != snapshot.Info
}

// judgeBucketsLowered compares with the kernel's default: half of the hash
// entries of the table that the namespace uses, its own or the shared one, whose
// number is shown below 0 then (tcp_set_hashinfo, net/ipv4/tcp_ipv4.c).
func judgeBucketsLowered(s *scene) []*found {
	limit, entries := *s.ns.Limits.TCPMaxTWBuckets, *s.ns.Limits.TCPEhashEntries
	usual := max(entries, -entries) / 2
	if limit >= usual {
		return nil
	}
	f := s.setting(BucketsLowered, advice.BucketsLowered,
		fmt.Sprintf("tcp_max_tw_buckets is %s, below the kernel's default of %s here: what is above skips TIME_WAIT, and the kernel logs nothing",
			draw.Count(int64(limit)), draw.Count(int64(usual))),
		isSet("tcp_max_tw_buckets", limit, "sockets"),
		snapshot.Evidence{What: "its default", Value: float64(usual), Unit: "sockets", Source: "half of sysctl net.ipv4.tcp_ehash_entries"})
	used := s.ns.TimeWait.BucketsUsed
	if float64(used) >= s.settings.Thresholds.of(bucketsNear, s.warned(BucketsLowered))*float64(limit) && used > 0 {
		f.Severity = snapshot.Warning
		f.Summary += fmt.Sprintf("; %s are in use", draw.Count(int64(used)))
		f.Evidence = append(f.Evidence, bucketEvidence(&s.ns.TimeWait)[0])
	}
	f.Summary += "."
	return []*found{f}
}

func judgeRecycle(s *scene) []*found {
	r := s.ns.Limits.TCPTWRecycle
	if r == nil || *r == 0 {
		return nil
	}
	return []*found{s.setting(RecycleOn, advice.RecycleOn,
		"tcp_tw_recycle is on: this old kernel drops connections of clients that share an address behind NAT, and Linux 4.12 removed the setting for that.",
		isSet("tcp_tw_recycle", *r, "setting"))}
}

// judgeFinTimeout tells what tcp_fin_timeout doesn't do, where somebody changed it.
func judgeFinTimeout(s *scene) []*found {
	t := *s.ns.Limits.TCPFinTimeout
	if t == defaultFinTimeout {
		return nil
	}
	return []*found{s.setting(FinTimeoutMyth, advice.FinTimeoutMyth,
		fmt.Sprintf("tcp_fin_timeout is %s and not the usual 60 s: TIME_WAIT lasts 60 s all the same, and only FIN_WAIT2 that no program holds ends at another time.",
			draw.Duration(float64(t))),
		isSet("tcp_fin_timeout", t, "s"))}
}

func judgeParity(s *scene) []*found {
	r := s.ns.Limits.IPLocalPortRange
	if r.Low%2 != r.High%2 {
		return nil
	}
	parity := "even"
	if r.Low%2 == 1 {
		parity = "odd"
	}
	return []*found{s.setting(RangeParity, advice.RangeParity,
		fmt.Sprintf("Both ends of ip_local_port_range (%d %d) are %s: the ports for connect() and those for bind() are not equally many; the kernel's documentation advises one even and one odd.",
			r.Low, r.High, parity),
		snapshot.Evidence{What: "lower end", Value: float64(r.Low), Unit: "", Source: "sysctl net.ipv4.ip_local_port_range"},
		snapshot.Evidence{What: "upper end", Value: float64(r.High), Unit: "", Source: "sysctl net.ipv4.ip_local_port_range"})}
}

// settingConsequences are what follows from a setting.
func settingConsequences() []consequence {
	always := func(*scene, *found, *found) bool { return true }
	return []consequence{
		{cause: BucketsLowered, of: BucketsOverflow, when: always},
		{cause: BucketsLowered, of: BucketsNear, when: always},
		{cause: RecycleOn, of: PAWSDrops, when: always},
	}
}
