// Package advice is the knowledge: which service customarily listens on a
// port. It is data in embedded YAML, read once, immutable afterwards; it knows
// nothing of the host it runs on.
package advice

import (
	_ "embed"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

//go:embed services.yaml
var servicesYAML []byte

// Services names services by port. It is immutable.
type Services struct {
	names map[uint16]string
	ports []uint16
}

// LoadServices reads the embedded table; an error means that the build is
// broken.
func LoadServices() (*Services, error) { return parseServices(servicesYAML) }

func parseServices(data []byte) (*Services, error) {
	var rows []struct {
		Name  string   `yaml:"name"`
		Ports []uint16 `yaml:"ports"`
	}
	if err := yaml.Unmarshal(data, &rows); err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	s := &Services{names: make(map[uint16]string)}
	for _, r := range rows {
		if r.Name == "" || len(r.Ports) == 0 {
			return nil, fmt.Errorf("services: an entry needs a name and ports: %+v", r)
		}
		for _, p := range r.Ports {
			if other, ok := s.names[p]; ok {
				return nil, fmt.Errorf("services: port %d stands for %s and for %s", p, other, r.Name)
			}
			s.names[p] = r.Name
			s.ports = append(s.ports, p)
		}
	}
	slices.Sort(s.ports)
	return s, nil
}

// Name is the service that customarily listens on a port, "" if none is known.
func (s *Services) Name(port uint16) string { return s.names[port] }

// Ports are all known ports, ascending; the caller must not change them.
func (s *Services) Ports() []uint16 { return s.ports }
