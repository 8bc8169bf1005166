package advice

import "testing"

func TestEmbeddedServices(t *testing.T) {
	s, err := LoadServices()
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]string{6379: "redis", 3306: "mysql", 443: "https", 9000: "", 0: ""} {
		if got := s.Name(port); got != want {
			t.Errorf("Name(%d) = %q, want %q", port, got, want)
		}
	}
	for _, p := range s.Ports() {
		if s.Name(p) == "" {
			t.Errorf("port %d is listed without a name", p)
		}
	}
}

func TestServicesAreChecked(t *testing.T) {
	for name, data := range map[string]string{
		"twice":   "- {name: a, ports: [1]}\n- {name: b, ports: [1]}\n",
		"no name": "- {ports: [1]}\n",
		"no port": "- {name: a}\n",
		"range":   "- {name: a, ports: [70000]}\n",
	} {
		if _, err := parseServices([]byte(data)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
