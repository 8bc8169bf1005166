package advice

import (
	"slices"
	"strconv"
	"strings"
)

// Services names services by port. It is immutable.
type Services struct {
	names map[uint16]string
	ports []uint16
}

// LoadServices reads the embedded table; an error means that the build is
// broken. [Load] costs little more and knows the operator's services too.
func LoadServices() (*Services, error) {
	l, err := Load()
	if err != nil {
		return nil, err
	}
	return l.Services(), nil
}

// Services is the library's table of ports. A port that several services
// share is not in it: alone it names none of them.
func (l *Library) Services() *Services {
	s := &Services{names: make(map[uint16]string)}
	for _, e := range l.services {
		for _, p := range e.Ports {
			s.names[p] = e.ID
			s.ports = append(s.ports, p)
		}
	}
	slices.Sort(s.ports)
	return s
}

// Name is the service that customarily listens on a port, "" if none is known.
func (s *Services) Name(port uint16) string { return s.names[port] }

// Ports are all known ports, ascending; the caller must not change them.
func (s *Services) Ports() []uint16 { return s.ports }

// How it is known which service a flow belongs to.
const (
	ByPort    = "port"    // by its port alone: usually so
	ByProcess = "process" // the process at this end speaks nothing else there
	ByConfig  = "config"  // the operator says so
)

// UnknownService stands among a remedy's services for none that is known: most
// backends of a proxy listen on a port of their own.
const UnknownService = "unknown"

// Service is what listens on a port, as far as port and runtime tell. runtime
// is an id from [Library.Runtime], "" if unknown. The second result is
// [ByProcess], [ByConfig], [ByPort], or "" with no service.
func (l *Library) Service(port uint16, runtime string) (Service, string) {
	if runtime != "" {
		for _, s := range l.services {
			onPort := slices.Contains(s.Ports, port) || slices.Contains(s.SharedPorts, port)
			if slices.Contains(s.Programs, runtime) || onPort && slices.Contains(s.PortPrograms, runtime) {
				return *s, ByProcess
			}
		}
	}
	for _, s := range l.services {
		if slices.Contains(s.Ports, port) {
			if s.operators {
				return *s, ByConfig
			}
			return *s, ByPort
		}
	}
	return Service{}, ""
}

func portList(s *Service) string {
	var own, shared []string
	for _, p := range s.Ports {
		own = append(own, strconv.Itoa(int(p)))
	}
	for _, p := range s.SharedPorts {
		shared = append(shared, strconv.Itoa(int(p)))
	}
	text := strings.Join(own, ", ")
	if len(shared) > 0 {
		text += "; " + strings.Join(shared, ", ") + ", which other services use too"
	}
	if text == "" {
		return "none of its own: told by the process"
	}
	return strings.TrimPrefix(text, "; ") + "; a port alone is a hint and no proof"
}
