package advice

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/counters"
	"github.com/twwatch/twwatch/internal/draw"
	"github.com/twwatch/twwatch/sysctl"
)

// A Fact is something of this host right now.
type Fact struct {
	What  string `json:"what"`
	Value string `json:"value"` // "not known on this host" where it can't be had
}

const notKnown = "not known on this host"

// Now looks up in a report what an explanation asks for; the first namespace
// of the report is this host's own. Nil where it asks for nothing.
func Now(names []string, r *snapshot.Report) []Fact {
	if r == nil || len(r.Namespaces) == 0 {
		return nil
	}
	n := r.Namespaces[0]
	var facts []Fact
	for _, name := range names {
		kind, key, _ := strings.Cut(name, ".")
		switch kind {
		case "state":
			facts = append(facts, Fact{"sockets in " + strings.ToUpper(key), jsonNumber(n.States, key)})
		case "limit":
			facts = append(facts, Fact{key, jsonNumber(n.Limits, key)})
		case "host":
			value := notKnown
			if r.HostLimits != nil {
				value = jsonNumber(*r.HostLimits, key)
			}
			facts = append(facts, Fact{key, value})
		case "counter":
			value := notKnown
			if v, ok := n.Counters[key]; ok {
				value = draw.Count(int64(min(v, 1<<62)))
			}
			facts = append(facts, Fact{"counter " + key + " since boot", value})
		case "value":
			facts = append(facts, computed(key, n))
		}
	}
	return facts
}

// values are what is computed and not read.
func values() []string {
	return []string{"buckets", "close-rate", "half-open-life", "connect-life", "orphans", "conntrack", "fullest-flow", "reserved-ports", "port-range"}
}

func computed(key string, n *snapshot.Namespace) Fact {
	life := func(retries *int) string {
		if retries == nil {
			return notKnown
		}
		return draw.Duration(HandshakeLife(*retries))
	}
	switch key {
	case "buckets":
		value := draw.Count(int64(n.TimeWait.BucketsUsed))
		if l := n.TimeWait.BucketsLimit; l != nil {
			value += " of " + draw.Count(int64(*l))
		}
		return Fact{"TIME_WAIT buckets in use", value}
	case "close-rate":
		if n.TimeWait.CloseRate == nil {
			return Fact{"connections that end in TIME_WAIT here", notKnown}
		}
		return Fact{"connections that end in TIME_WAIT here", draw.Rate(*n.TimeWait.CloseRate)}
	case "half-open-life":
		return Fact{"a half-open handshake lives (from tcp_synack_retries)", life(n.Limits.TCPSynackRetries)}
	case "connect-life":
		return Fact{"connect() gives up after, at least (from tcp_syn_retries)", life(n.Limits.TCPSynRetries)}
	case "orphans":
		if n.Sockstat.Orphan == nil {
			return Fact{"orphans, of the whole kernel", notKnown}
		}
		return Fact{"orphans, of the whole kernel", draw.Count(int64(*n.Sockstat.Orphan))}
	case "conntrack":
		if n.Conntrack == nil || n.Conntrack.Entries == nil {
			return Fact{"conntrack entries", "conntrack is not loaded here, or can't be read"}
		}
		return Fact{"conntrack entries", draw.Count(int64(min(*n.Conntrack.Entries, 1<<62)))}
	case "fullest-flow":
		return Fact{"ports that the fullest client flow can't use now", fullest(n)}
	case "reserved-ports":
		value := notKnown
		if p := n.Limits.IPLocalReservedPorts; p != nil {
			value = draw.Count(int64(p.Count()))
		}
		return Fact{"ports in ip_local_reserved_ports", value}
	default: // port-range
		value := notKnown
		if p := n.Limits.IPLocalPortRange; p != nil {
			value = p.String() + ", " + draw.Count(int64(p.Size())) + " ports"
		}
		return Fact{"ip_local_port_range", value}
	}
}

// fullest is the tightest client flow's share of its range.
func fullest(n *snapshot.Namespace) string {
	best, text := -1.0, "no client flow here"
	for i := range n.Flows {
		p := n.Flows[i].Ports
		if p == nil || p.Range <= p.Reserved {
			continue
		}
		all := p.Range - p.Reserved
		if used := float64(all-p.Free) / float64(all); used > best {
			best, text = used, draw.Count(int64(all-p.Free))+" of "+draw.Count(int64(all))
		}
	}
	return text
}

// jsonNumber is the value of a struct's field by its JSON key.
func jsonNumber(v any, key string) string {
	b, err := json.Marshal(v)
	if err != nil {
		return notKnown
	}
	var fields map[string]any
	if json.Unmarshal(b, &fields) != nil {
		return notKnown
	}
	switch f := fields[key].(type) {
	case float64:
		return draw.Count(int64(f))
	case string:
		return f
	}
	return notKnown
}

func knownNow(name string) bool {
	kind, key, _ := strings.Cut(name, ".")
	switch kind {
	case "state":
		return jsonKey(reflect.TypeFor[snapshot.States](), key)
	case "limit":
		return jsonKey(reflect.TypeFor[sysctl.Limits](), key)
	case "host":
		return jsonKey(reflect.TypeFor[sysctl.HostLimits](), key)
	case "counter":
		return slices.Contains(counters.Names(), key)
	case "value":
		return slices.Contains(values(), key)
	}
	return false
}

func jsonKey(t reflect.Type, key string) bool {
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == key {
			return true
		}
	}
	return false
}
