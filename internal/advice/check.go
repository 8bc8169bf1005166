package advice

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Patterns are what a situation may be; remedies say for which they are.
const (
	NoPool             = "no-pool"        // a connection for every request
	PoolTooSmall       = "pool-too-small" // some are kept, more are needed
	ServerCloses       = "server-closes"  // the server here closes first
	RemoteCloses       = "remote-closes"  // the TIME_WAIT are at the other end
	ResetUnread        = "reset-unread"   // closed with unread data
	ResetLinger        = "reset-linger"   // SO_LINGER 0
	HealthCheck        = "health-check"
	Ports              = "ports" // a client flow runs out of them
	BindBeforeConnect  = "bind-before-connect"
	ListenersInRange   = "listeners-in-range"
	Buckets            = "buckets"
	Harmless           = "harmless"
	CloseWaitLeak      = "close-wait-leak"
	CloseWaitStalePool = "close-wait-stale-pool"
	CloseWaitStuck     = "close-wait-stuck-reader"
	CloseWaitUnaccept  = "close-wait-not-accepted"
	CloseWaitHalfClose = "close-wait-half-close"
	HalfOpen           = "half-open"
	AcceptQueue        = "accept-queue"
	FinWait            = "fin-wait"
	LastAck            = "last-ack"
	Orphans            = "orphans"
	PAWS               = "paws"
	Conntrack          = "conntrack"
	SNAT               = "snat"
	ReservedPorts      = "reserved-ports"
	ReuseNoTimestamps  = "reuse-without-timestamps"
	BucketsLowered     = "buckets-lowered"
	RecycleOn          = "recycle-on"
	FinTimeoutMyth     = "fin-timeout"
	RangeParity        = "range-parity"
	// Settings of the node that a pod lacks.
	DriftPortRange  = "drift-port-range"
	DriftTWReuse    = "drift-tw-reuse"
	DriftBuckets    = "drift-buckets"
	DriftSomaxconn  = "drift-somaxconn"
	DriftSynBacklog = "drift-syn-backlog"
)

// Patterns lists them all.
func Patterns() []string {
	return []string{
		NoPool, PoolTooSmall, ServerCloses, RemoteCloses, ResetUnread, ResetLinger, HealthCheck, Ports, BindBeforeConnect,
		ListenersInRange, Buckets, Harmless, CloseWaitLeak, CloseWaitStalePool, CloseWaitStuck, CloseWaitUnaccept, CloseWaitHalfClose,
		HalfOpen, AcceptQueue, FinWait, LastAck, Orphans, PAWS, Conntrack, SNAT, ReservedPorts,
		ReuseNoTimestamps, BucketsLowered, RecycleOn, FinTimeoutMyth, RangeParity,
		DriftPortRange, DriftTWReuse, DriftBuckets, DriftSomaxconn, DriftSynBacklog,
	}
}

// orders are the ranks of remedies: what cures before what only helps.
func orders() []string {
	return []string{"fix", "reuse", "unix-socket", "more-tuples", "wider-range", "tw-reuse", "limit", "never"}
}

func addService(r *reader, e *entries, n *yaml.Node) {
	s := &Service{operators: r.operators, at: r.origin(n)}
	if !r.decode(n, s) {
		return
	}
	var there *origin
	if o := serviceOf(e.services, s.ID); o != nil {
		there = &o.at
	}
	r.id(n, s.ID, there)
	r.references(n, s.References)
	if len(s.Ports) == 0 && len(s.SharedPorts) == 0 && len(s.Programs) == 0 {
		r.fail(n, "ports", "missing: give its ports, or programs that speak only this")
	}
	for _, p := range s.Ports {
		other := slices.IndexFunc(e.services, func(o *Service) bool { return slices.Contains(o.Ports, p) })
		switch {
		case p == 0:
			r.fail(n, "ports", "0 is no port: want 1 to 65535")
		case other >= 0 && !e.services[other].operators:
			r.fail(n, "ports", "port %d stands for %s already: list it under shared_ports of both", p, e.services[other].ID)
		case other >= 0 && r.operators:
			r.fail(n, "ports", "port %d stands for %s already", p, e.services[other].ID)
		case other >= 0: // an operator's word on a port goes before ours
			s.Ports = slices.DeleteFunc(slices.Clone(s.Ports), func(o uint16) bool { return o == p })
		}
	}
	e.services = append(e.services, s)
}

func addRuntime(r *reader, e *entries, n *yaml.Node) {
	t := &Runtime{at: r.origin(n)}
	if !r.decode(n, t) {
		return
	}
	var there *origin
	if o := runtimeOf(e.runtimes, t.ID); o != nil {
		there = &o.at
	}
	r.id(n, t.ID, there)
	r.references(n, t.References)
	kinds := []string{"language", "proxy", "server", "tool", "load-generator", "probe"}
	if !slices.Contains(kinds, t.Kind) {
		r.fail(field(n, "kind"), "kind", "%s: want one of %s", quote(t.Kind), strings.Join(kinds, ", "))
	}
	if t.Family == "" {
		t.Family = t.ID
	}
	for _, p := range slices.Concat(t.Comm, t.Exe, t.Cmdline, t.GoBuild, t.JavaMain, t.Script) {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			r.fail(n, "", "%s is no pattern", quote(p))
		}
	}
	e.runtimes = append(e.runtimes, t)
}

func addRemedy(r *reader, e *entries, n *yaml.Node) {
	m := &Remedy{operators: r.operators, at: r.origin(n)}
	if !r.decode(n, m) {
		return
	}
	var there *origin
	if i := slices.IndexFunc(e.remedies, func(o *Remedy) bool { return o.ID == m.ID }); i >= 0 {
		there = &e.remedies[i].at
	}
	r.id(n, m.ID, there)
	r.references(n, m.References)
	if !slices.Contains(orders(), m.Order) {
		r.fail(field(n, "order"), "order", "%s: want one of %s", quote(m.Order), strings.Join(orders(), ", "))
	}
	when := field(n, "when")
	for _, p := range m.When.Patterns {
		if !slices.Contains(Patterns(), p) {
			r.fail(field(when, "patterns"), "when: patterns", "%s is unknown: want some of %s", quote(p), strings.Join(Patterns(), ", "))
		}
	}
	if len(m.When.Patterns) == 0 {
		r.fail(when, "when: patterns", "missing: want some of %s", strings.Join(Patterns(), ", "))
	}
	if !slices.Contains([]string{"", "client", "server"}, m.When.Side) {
		r.fail(field(when, "side"), "when: side", "%s: want client or server", quote(m.When.Side))
	}
	for key, v := range map[string]string{"from": m.When.From, "before": m.When.Before} {
		if _, ok := parseVersion(v); v != "" && !ok {
			r.fail(field(when, key), "when: "+key, "%s: want a version such as 1.29.7", quote(v))
		}
	}
	if len(m.Sysctls) > 0 && m.Snippet != "" {
		r.fail(field(n, "snippet"), "snippet", "a remedy with sysctls has a snippet made of them: give one or the other")
	}
	for i := range m.Sysctls {
		r.sysctl(field(n, "sysctls"), &m.Sysctls[i])
	}
	r.templates(n, m)
	e.remedies = append(e.remedies, m)
}

func (r *reader) sysctl(n *yaml.Node, s *Sysctl) {
	if strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789._") != "" || !strings.Contains(s.Name, ".") {
		r.fail(n, "sysctls: name", "%s: want a name such as net.ipv4.tcp_tw_reuse", quote(s.Name))
	}
	if s.Value == "" || s.Present == "" {
		r.fail(n, "sysctls: value, present", "missing: the new value and the present one are both shown")
	}
	if !slices.Contains([]string{"namespace", "host"}, s.Reach) {
		r.fail(n, "sysctls: reach", "%s: want namespace or host", quote(s.Reach))
	}
	if !slices.Contains([]string{"safe", "unsafe", "host"}, s.Kubernetes) {
		r.fail(n, "sysctls: kubernetes", "%s: want safe, unsafe or host", quote(s.Kubernetes))
	}
	if _, ok := parseVersion(s.KubernetesSince); s.KubernetesSince != "" && (!ok || strings.Trim(s.KubernetesSince, "0123456789.") != "") {
		r.fail(n, "sysctls: kubernetes_since", "%s: want a version such as 1.27", quote(s.KubernetesSince))
	}
}

func addTopic(r *reader, e *entries, n *yaml.Node) {
	t := &Topic{at: r.origin(n)}
	if !r.decode(n, t) {
		return
	}
	var there *origin
	if i := slices.IndexFunc(e.topics, func(o *Topic) bool { return o.ID == t.ID }); i >= 0 {
		there = &e.topics[i].at
	}
	r.id(n, t.ID, there)
	r.references(n, t.References)
	if !slices.Contains(groups(), t.Group) {
		r.fail(field(n, "group"), "group", "%s: want one of %s", quote(t.Group), strings.Join(groups(), ", "))
	}
	r.now(n, t.Now)
	for _, f := range t.Formulas {
		if _, ok := formula(f); !ok {
			r.fail(field(n, "formulas"), "formulas", "%s is unknown", quote(f))
		}
	}
	e.topics = append(e.topics, t)
}

// groups are the shelves of topics, in the order that they are listed.
func groups() []string { return []string{"states", "handshakes", "ports", "limits", "practice"} }

func addFinding(r *reader, e *entries, n *yaml.Node) {
	f := &Finding{at: r.origin(n)}
	if !r.decode(n, f) {
		return
	}
	var there *origin
	if i := slices.IndexFunc(e.findings, func(o *Finding) bool { return o.ID == f.ID }); i >= 0 {
		there = &e.findings[i].at
	}
	r.id(n, f.ID, there)
	r.now(n, f.Now)
	for _, p := range f.Patterns {
		if !slices.Contains(Patterns(), p) {
			r.fail(field(n, "patterns"), "patterns", "%s is unknown", quote(p))
		}
	}
	if len(f.Patterns) == 0 && f.None == "" {
		r.fail(n, "no_remedy", "missing: without patterns, say why there is nothing to do")
	}
	e.findings = append(e.findings, f)
}

func (r *reader) origin(n *yaml.Node) origin { return origin{r.file.Name, n.Line} }

// id checks an entry's id. there is where another one of that id stands, nil if
// there is none.
func (r *reader) id(n *yaml.Node, id string, there *origin) {
	switch {
	case !validID(id):
		r.fail(field(n, "id"), "id", "%s: want small letters, digits and hyphens", quote(id))
	case there != nil && there.file != r.file.Name && !r.operators:
		// The operator's file was read first; it is the one to change.
		r.errs = append(r.errs, &DataError{File: there.file, Line: there.line, Key: r.entry + ": id", Want: "twwatch has an entry of this id itself: give it another id"})
	case there != nil:
		r.fail(field(n, "id"), "id", "%s is there already, in line %d of %s: give it another id", quote(id), there.line, there.file)
	}
}

// references holds every source to having an address that leads somewhere.
func (r *reader) references(n *yaml.Node, refs []Reference) {
	if !r.strict {
		return
	}
	list := field(n, "references")
	for i, ref := range refs {
		u, err := url.Parse(ref.URL)
		switch {
		case strings.TrimSpace(ref.Title) == "":
			r.fail(list.Content[i], "references: title", "missing: say what the address leads to")
		case ref.URL == "":
			r.fail(list.Content[i], "references: url", "missing: a reference needs its address, https://...")
		case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.ContainsAny(ref.URL, " \t\n\"<>"):
			r.fail(list.Content[i], "references: url", "%s: want an address that starts with https://", quote(ref.URL))
		}
	}
}

func (r *reader) now(n *yaml.Node, names []string) {
	for _, name := range names {
		if !knownNow(name) {
			r.fail(field(n, "now"), "now", "%s is nothing that can be looked up", quote(name))
		}
	}
}

// check holds entries that name each other to naming what is there. Topics and
// findings, which no file may add to, are checked on demand.
func (l *Library) check(lessons bool) error {
	runtimes, services, families := map[string]bool{}, map[string]bool{UnknownService: true}, map[string]bool{}
	for _, r := range l.runtimes {
		runtimes[r.ID], families[r.ID], families[r.Family] = true, true, true
	}
	for _, s := range l.services {
		services[s.ID] = true
	}
	var errs []error
	want := func(at origin, key, kind string, there map[string]bool, names ...string) {
		for _, id := range names {
			if !there[id] {
				errs = append(errs, &DataError{File: at.file, Line: at.line, Key: key, Want: fmt.Sprintf("there is no %s %s", kind, quote(id))})
			}
		}
	}
	for _, s := range l.services {
		want(s.at, "services: "+s.ID+": programs", KindRuntime, runtimes, slices.Concat(s.Programs, s.PortPrograms)...)
		if s.Like != "" {
			want(s.at, "services: "+s.ID+": like", KindService, services, s.Like)
		}
	}
	for _, m := range l.allRemedies() {
		want(m.at, "remedies: "+m.ID+": when: runtimes", "runtime or family", families, m.When.Runtimes...)
		want(m.at, "remedies: "+m.ID+": when: services", KindService, services, m.When.Services...)
	}
	if lessons {
		all := map[string]bool{}
		for _, i := range l.IDs() {
			all[i.ID] = true
		}
		for _, t := range l.teaches().topics {
			want(t.at, "topics: "+t.ID+": see", "entry", all, t.See...)
		}
		for _, f := range l.teaches().findings {
			want(f.at, "findings: "+f.ID+": see", "entry", all, f.See...)
		}
	}
	return errors.Join(errs...)
}
