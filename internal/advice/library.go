package advice

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

//go:embed data
var embedded embed.FS

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
	texts     texts
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

// A Library is all knowledge, immutable.
type Library struct {
	subjects []string // what was read
	strict   bool     // check the embedded files as hard as an operator's
	services []*Service
	runtimes []*Runtime
	remedies []*Remedy
	topics   []*Topic
	findings []*Finding
}

// Load reads the embedded data and the extra files, which may add services and
// remedies. The error joins one [*DataError] for each thing wrong. It takes
// some ten milliseconds: once in a process is enough.
func Load(extra ...File) (*Library, error) {
	return load([]string{"runtimes", "services", "remedies", "topics", "findings"}, extra)
}

func load(subjects []string, extra []File) (*Library, error) {
	return (&Library{subjects: subjects}).load(extra)
}

func (l *Library) load(extra []File) (*Library, error) {
	var errs []error
	// An operator's entries come first, so that they win where both fit.
	for _, f := range extra {
		errs = append(errs, l.add(f, true))
	}
	own, err := embeddedFiles(l.subjects)
	if err != nil {
		return nil, err
	}
	for _, f := range own {
		errs = append(errs, l.add(f, false))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return l, nil
}

// embeddedFiles are sorted by name within a subject: their order is the
// library's.
func embeddedFiles(subjects []string) ([]File, error) {
	var files []File
	for _, subject := range subjects {
		names, err := fs.Glob(embedded, "data/"+subject+"/*.yaml")
		if err != nil {
			return nil, fmt.Errorf("advice: %w", err)
		}
		for _, name := range names {
			data, err := embedded.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("advice: %w", err)
			}
			files = append(files, File{Name: name, Data: data})
		}
	}
	return files, nil
}

func (l *Library) runtime(id string) *Runtime {
	i := slices.IndexFunc(l.runtimes, func(r *Runtime) bool { return r.ID == id })
	if i < 0 {
		return nil
	}
	return l.runtimes[i]
}

func (l *Library) service(id string) *Service {
	i := slices.IndexFunc(l.services, func(s *Service) bool { return s.ID == id })
	if i < 0 {
		return nil
	}
	return l.services[i]
}
