package snapshot

import (
	"crypto/rand"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A Redactor takes the identity out of reports, so that they can be shown to
// somebody else. What it replaces, it replaces by the same in all reports it
// sees: the numbers still tell the same story.
//
// Replaced are addresses and prefixes (IPv4 stays IPv4, IPv6 stays IPv6;
// loopback and unspecified addresses stay as they are, link-local ones stay
// link-local, addresses of one /24 or /64 stay together), the host's name and
// boot id, and the names of processes, cgroups, devices, namespaces and
// services of the configuration; also wherever they stand in the text of
// findings and errors. Kept are ports, counts, times, process and user ids,
// inodes, settings and versions: who knows them from elsewhere may still
// recognise the host.
//
// It remembers the names, not the addresses. It is not for concurrent use.
type Redactor struct {
	scramble scrambler
	names    map[string]string // original → placeholder, at most maxNames
	extra    map[string]string // the same beyond that, of the present report
	numbers  map[string]int    // last number given, by kind
	lengths  []int             // of the originals, descending
}

// maxNames bounds what a Redactor remembers.
const maxNames = 1 << 16

// NewRedactor returns a Redactor whose replacements depend on key: with the
// same key, addresses become the same again. Nil is a random key, which nobody
// knows. A key that can be guessed protects nothing.
func NewRedactor(key []byte) *Redactor {
	if key == nil {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails
	}
	return &Redactor{
		scramble: newScrambler(key),
		names:    map[string]string{}, extra: map[string]string{}, numbers: map[string]int{},
	}
}

// Redact returns a copy of r without identity, which says so. It shares
// nothing with r that can be changed.
func (r *Redactor) Redact(report *Report) *Report {
	clear(r.extra)
	out := deepCopy(reflect.ValueOf(report)).Interface().(*Report)
	out.Redacted = true
	// Names first: the texts may hold any of them.
	out.Host = r.name("host", out.Host)
	out.BootID = r.name("boot", out.BootID)
	for _, n := range out.Namespaces {
		r.namespace(n)
	}
	for i := range out.Findings {
		f := &out.Findings[i]
		f.Namespace = r.namespaceName(f.Namespace)
		r.subject(&f.Subject)
	}
	for _, gaps := range [][]Gap{out.Incomplete, out.Limited} {
		for i := range gaps {
			gaps[i].Namespace = r.namespaceName(gaps[i].Namespace)
		}
	}
	r.texts(out)
	return out
}

func (r *Redactor) namespace(n *Namespace) {
	switch n.Kind {
	case "host", "self":
	default:
		n.Name = r.name(placeholderKind(n.Kind), n.Name)
	}
	if w := n.Workload; w != nil {
		r.workload(w)
	}
	for i := range n.Addresses {
		n.Addresses[i] = r.address(n.Addresses[i])
	}
	for i := range n.Flows {
		f := &n.Flows[i]
		f.Device, f.Local, f.Remote = r.device(f.Device), r.address(f.Local), r.address(f.Remote)
		f.RemoteName = r.name("name", f.RemoteName)
		if f.ServiceBy == "config" {
			f.Service = r.name("service", f.Service)
		}
		for j := range f.Processes {
			p := &f.Processes[j]
			p.Comm, p.Exe, p.Cgroup = r.name("process", p.Comm), r.exe(p.Exe), r.cgroup(p.Cgroup)
		}
	}
	for i := range n.Owners {
		o := &n.Owners[i]
		o.Comm, o.Exe, o.Cgroup = r.name("process", o.Comm), r.exe(o.Exe), r.cgroup(o.Cgroup)
	}
	for i := range n.Listeners {
		l := &n.Listeners[i]
		l.Local, l.Device, l.Comm = r.address(l.Local), r.device(l.Device), r.name("process", l.Comm)
	}
	for i := range n.CloseWaits {
		c := &n.CloseWaits[i]
		c.Local, c.Remote, c.Comm = r.address(c.Local), r.address(c.Remote), r.name("process", c.Comm)
	}
	for i := range n.HalfOpen {
		n.HalfOpen[i].Remote = r.address(n.HalfOpen[i].Remote)
	}
	for i := range n.Sockets {
		s := &n.Sockets[i]
		s.Local, s.Remote, s.Device, s.Comm = r.address(s.Local), r.address(s.Remote), r.device(s.Device), r.name("process", s.Comm)
	}
	SortSockets(n.Sockets) // the order before tells which address is the lower one
}

func (r *Redactor) workload(w *Workload) {
	w.Namespace, w.Pod, w.PodUID = r.name("namespace", w.Namespace), r.name("pod", w.Pod), r.name("pod", w.PodUID)
	w.Container, w.ContainerID = r.name("container", w.Container), r.name("container", w.ContainerID)
	w.Unit = r.name("unit", w.Unit)
	for key, value := range w.Labels {
		w.Labels[key] = r.name("label", value)
	}
}

// placeholderKind is a namespace's kind, if it is one that this version knows.
func placeholderKind(kind string) string {
	if slices.Contains([]string{"named", "container", "pod", "process"}, kind) {
		return kind
	}
	return "namespace"
}

// namespaceName replaces the name of a namespace that is referred to.
func (r *Redactor) namespaceName(name string) string {
	if name == "host" || name == "self" {
		return name
	}
	return r.name("namespace", name)
}

func (r *Redactor) subject(s *Subject) {
	s.Device, s.Local, s.Remote = r.device(s.Device), r.address(s.Local), r.address(s.Remote)
	s.Process = r.name("process", s.Process)
	if with, ok := r.names[s.Service]; ok && strings.HasPrefix(with, "service-") {
		s.Service = with
	}
}

func (r *Redactor) texts(out *Report) {
	rewrite := func(texts ...*string) {
		for _, s := range texts {
			*s = r.text(*s)
		}
	}
	for _, gaps := range [][]Gap{out.Incomplete, out.Limited} {
		for i := range gaps {
			g := &gaps[i]
			rewrite(&g.Error, &g.Lost, &g.Fix)
		}
	}
	for i := range out.Findings {
		f := &out.Findings[i]
		rewrite(&f.Summary)
		for j := range f.Evidence {
			e := &f.Evidence[j]
			rewrite(&e.What, &e.Unit, &e.Source)
		}
		for j := range f.Recommendations {
			c := &f.Recommendations[j]
			rewrite(&c.Title, &c.Do, &c.Snippet, &c.Effect)
			for k := range c.Caveats {
				rewrite(&c.Caveats[k])
			}
			for k := range c.References {
				rewrite(&c.References[k])
			}
		}
	}
}

// address replaces an address, a prefix or address:port; anything else that
// stands where an address should is replaced as a name.
func (r *Redactor) address(s string) string {
	if s == "" {
		return ""
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return r.zoned(a).String()
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return r.scramble.prefix(p).String()
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(r.zoned(ap.Addr()), ap.Port()).String()
	}
	return r.name("address", s)
}

// zoned replaces an address and its zone.
func (r *Redactor) zoned(a netip.Addr) netip.Addr {
	out := r.scramble.addr(a)
	if a.Zone() != "" && out.Is6() {
		out = out.WithZone(r.device(a.Zone()))
	}
	return out
}

// device replaces a device's name; every host has lo.
func (r *Redactor) device(s string) string {
	if s == "lo" {
		return s
	}
	return r.name("device", s)
}

// exe replaces the path of a program by its last part's placeholder.
func (r *Redactor) exe(path string) string {
	dir := strings.LastIndexByte(path, '/')
	if dir < 0 || dir+1 == len(path) {
		return r.name("process", path)
	}
	with := "/" + r.name("process", path[dir+1:])
	r.learn(path, with, len(r.names) >= maxNames)
	return with
}

// cgroup replaces each part of a cgroup's path, so that what shares a slice
// still does.
func (r *Redactor) cgroup(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parts[i] = r.name("cgroup", part)
	}
	return strings.Join(parts, "/")
}

// name returns the placeholder of an original, the same each time.
func (r *Redactor) name(kind, original string) string {
	if original == "" {
		return ""
	}
	if with, ok := r.names[original]; ok {
		return with
	}
	if with, ok := r.extra[original]; ok {
		return with
	}
	full := len(r.names) >= maxNames
	with := original
	for with == original {
		if full {
			r.numbers["extra"]++
			with = kind + "-x" + strconv.Itoa(r.numbers["extra"])
			continue
		}
		r.numbers[kind]++
		with = kind + "-" + strconv.Itoa(r.numbers[kind])
	}
	r.learn(original, with, full)
	// Texts may show it escaped.
	quoted := strconv.Quote(original)
	if escaped := quoted[1 : len(quoted)-1]; escaped != original {
		r.learn(escaped, with, full)
	}
	return with
}

func (r *Redactor) learn(original, with string, full bool) {
	into := r.names
	if full {
		into = r.extra
	}
	into[original] = with
	at, found := slices.BinarySearchFunc(r.lengths, len(original), func(have, want int) int { return want - have })
	if !found {
		r.lengths = slices.Insert(r.lengths, at, len(original))
	}
}

// deepCopy copies a value of the model, so that no pointer, slice or map is
// shared. Unexported fields (of sets of ports and times) are immutable and are
// copied as they are.
func deepCopy(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(deepCopy(v.Elem()))
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				out.Index(i).Set(deepCopy(v.Index(i)))
			}
		}
	case reflect.Map:
		if !v.IsNil() {
			out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
			for key, value := range v.Seq2() {
				out.SetMapIndex(key, deepCopy(value))
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(deepCopy(v.Field(i)))
			}
		}
	}
	return out
}
