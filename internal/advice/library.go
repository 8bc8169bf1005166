package advice

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
)

//go:embed data
var files embed.FS

// A File is YAML in the schema of the embedded data, such as an operator's
// own services and remedies. Name stands in errors.
type File struct {
	Name string
	Data []byte
}

// MaxFile is the most bytes that a file may have.
const MaxFile = 1 << 20

// A Reference is where a fact can be checked.
type Reference struct {
	Title string `yaml:"title" json:"title"`
	URL   string `yaml:"url" json:"url"`
}

// A Service is what may listen on a port.
type Service struct {
	ID    string `yaml:"id"`
	Title string `yaml:"title"`
	Like  string `yaml:"like"` // another service whose remedies fit this one as well
	// Ports are its own; SharedPorts are another service's too, so that the
	// port alone tells nothing.
	Ports       []uint16 `yaml:"ports"`
	SharedPorts []uint16 `yaml:"shared_ports"`
	// Programs are runtimes that speak only this, whatever the port;
	// PortPrograms settle it together with one of the ports.
	Programs     []string `yaml:"programs"`
	PortPrograms []string `yaml:"port_programs"`

	LongLived   string      `yaml:"long_lived"`   // are its connections meant to last
	ClosesFirst string      `yaml:"closes_first"` // who does, in good order
	Idle        string      `yaml:"idle"`         // idle timeouts that break pools
	Limit       string      `yaml:"limit"`        // how to see how many connections the server takes
	Do          string      `yaml:"do"`
	Caveats     []string    `yaml:"caveats"`
	References  []Reference `yaml:"references"`

	at        origin
	operators bool // from an operator's file
}

// A Runtime is a kind of program, told by how its processes look.
type Runtime struct {
	ID     string `yaml:"id"`
	Title  string `yaml:"title"`
	Kind   string `yaml:"kind"`   // language, proxy, server, tool, load-generator, probe
	Family string `yaml:"family"` // another id that remedies may name instead; its own if empty
	// Patterns as in path.Match; one that fits is enough. "*" fits what no
	// other pattern claims.
	Comm     []string `yaml:"comm"`
	Exe      []string `yaml:"exe"`     // the last part of its path
	Cmdline  []string `yaml:"cmdline"` // the process's title, its whole command line
	GoBuild  []string `yaml:"go_build"`
	JavaMain []string `yaml:"java_main"`
	Script   []string `yaml:"script"` // the last part of its path

	About      string      `yaml:"about"`
	References []Reference `yaml:"references"`

	at origin
}

// A Remedy is something to change.
type Remedy struct {
	ID    string `yaml:"id"`
	Title string `yaml:"title"`
	Order string `yaml:"order"`
	When  When   `yaml:"when"`
	// NeedsProcess: only where the process, or the operator's file, tells what
	// this is about; a port alone is not enough.
	NeedsProcess bool        `yaml:"needs_process"`
	OnlyIf       string      `yaml:"only_if"`
	Do           string      `yaml:"do"`
	Snippet      string      `yaml:"snippet"`
	Sysctls      []Sysctl    `yaml:"sysctls"`
	Effect       string      `yaml:"effect"`
	Caveats      []string    `yaml:"caveats"`
	References   []Reference `yaml:"references"`

	at        origin
	texts     func() *texts // parsed at the first call, once
	operators bool
}

// When says what a remedy is for. An empty list fits all.
type When struct {
	Patterns []string `yaml:"patterns"`
	Side     string   `yaml:"side"`
	Services []string `yaml:"services"`
	Runtimes []string `yaml:"runtimes"` // ids or families
	Local    bool     `yaml:"local"`    // only where the server is on this host
	From     string   `yaml:"from"`     // the runtime's version, inclusive
	Before   string   `yaml:"before"`   // the runtime's version, exclusive
}

// A Sysctl is a setting that a remedy changes. Value and Present are templates.
type Sysctl struct {
	Name       string `yaml:"name"`
	Value      string `yaml:"value"`
	Present    string `yaml:"present"`
	Reach      string `yaml:"reach"`      // namespace, host
	Kubernetes string `yaml:"kubernetes"` // safe, unsafe, host
	// KubernetesSince is the version from which it is safe, "" if always.
	KubernetesSince string `yaml:"kubernetes_since"`
}

// A Topic is something that explain teaches: a state, a handshake, a myth.
type Topic struct {
	ID         string      `yaml:"id"`
	Title      string      `yaml:"title"`
	Group      string      `yaml:"group"` // states, handshakes, ports, limits, myths
	Says       string      `yaml:"says"`  // the answer in a sentence or two
	Who        string      `yaml:"who"`   // who is in it
	HowLong    string      `yaml:"how_long"`
	Why        string      `yaml:"why"` // why it exists
	PilesUp    string      `yaml:"piles_up"`
	Drawing    string      `yaml:"drawing"`
	More       []string    `yaml:"more"`
	Formulas   []string    `yaml:"formulas"`
	Sysctls    []string    `yaml:"sysctls"`
	Counters   []string    `yaml:"counters"`
	Now        []string    `yaml:"now"` // what to look up on this host
	See        []string    `yaml:"see"`
	References []Reference `yaml:"references"`

	at origin
}

// A Finding is the explanation of a judgement.
type Finding struct {
	ID       string   `yaml:"id"`
	Title    string   `yaml:"title"`
	Says     string   `yaml:"says"`     // what it means
	Why      string   `yaml:"why"`      // why it matters, or why it doesn't
	Evidence string   `yaml:"evidence"` // how it is told, so that a reader can check
	Patterns []string `yaml:"patterns"` // whose remedies apply
	None     string   `yaml:"no_remedy"`
	Now      []string `yaml:"now"`
	See      []string `yaml:"see"`

	at origin
}

// An origin is where an entry stands.
type origin struct {
	file string
	line int
}

// Entries are what was read, in the order that they stood in.
type entries struct {
	services []*Service
	runtimes []*Runtime
	remedies []*Remedy
	topics   []*Topic
	findings []*Finding
	strict   bool // check the embedded files as hard as an operator's
}

// A Library is all knowledge, immutable and safe for concurrent use. Services
// and runtimes are in memory from the start. The remedies are read when the
// first one is asked for, topics and findings when the first text is: a pass
// that finds nothing pays for neither.
type Library struct {
	services []*Service
	runtimes []*Runtime
	// The two ask the embedded files once, and answer the same ever after.
	remedies func() ([]*Remedy, error)
	lessons  func() (lessons, error)
}

type lessons struct {
	topics   []*Topic
	findings []*Finding
}

// Load reads the extra files, which may add services and remedies, and of the
// embedded data what is needed at once. The error joins one [*DataError] for
// each thing wrong. It takes some 2 ms, and with extra files some 7: once in a
// process is enough.
func Load(extra ...File) (*Library, error) {
	return load(extra, false)
}

func load(extra []File, strict bool) (*Library, error) {
	var errs []error
	base := entries{strict: strict}
	// An operator's entries come first, so that they win where both fit.
	for _, f := range extra {
		errs = append(errs, base.add(f, true))
	}
	errs = append(errs, base.embedded("runtimes"), base.embedded("services"))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	l := &Library{services: base.services, runtimes: base.runtimes}
	l.remedies = sync.OnceValues(func() ([]*Remedy, error) {
		e := base
		err := e.embedded("remedies")
		return e.remedies, err
	})
	l.lessons = sync.OnceValues(func() (lessons, error) {
		e := base
		err := errors.Join(e.embedded("topics"), e.embedded("findings"))
		return lessons{e.topics, e.findings}, err
	})
	if len(extra) == 0 && !strict {
		return l, nil // a test has checked the rest, so that reading it can't fail
	}
	if _, err := l.remedies(); err != nil {
		return nil, err
	}
	if strict {
		if _, err := l.lessons(); err != nil {
			return nil, err
		}
	}
	return l, l.check(strict)
}

// embedded reads the files of one subject, sorted by name: their order is the
// library's.
func (e *entries) embedded(subject string) error {
	names, err := fs.Glob(files, "data/"+subject+"/*.yaml")
	if err != nil {
		return fmt.Errorf("advice: %w", err)
	}
	var errs []error
	for _, name := range names {
		data, err := files.ReadFile(name)
		if err != nil {
			return fmt.Errorf("advice: %w", err)
		}
		errs = append(errs, e.add(File{Name: name, Data: data}, false))
	}
	return errors.Join(errs...)
}

// allRemedies are the operator's, then the embedded ones.
func (l *Library) allRemedies() []*Remedy {
	remedies, _ := l.remedies()
	return remedies
}

// teaches are the topics and the findings.
func (l *Library) teaches() lessons {
	lessons, _ := l.lessons()
	return lessons
}

func (l *Library) runtime(id string) *Runtime { return runtimeOf(l.runtimes, id) }

func (l *Library) service(id string) *Service { return serviceOf(l.services, id) }

func runtimeOf(all []*Runtime, id string) *Runtime {
	i := slices.IndexFunc(all, func(r *Runtime) bool { return r.ID == id })
	if i < 0 {
		return nil
	}
	return all[i]
}

func serviceOf(all []*Service, id string) *Service {
	i := slices.IndexFunc(all, func(s *Service) bool { return s.ID == id })
	if i < 0 {
		return nil
	}
	return all[i]
}
