package collector

import (
	"cmp"
	"net"
	"net/netip"
	"slices"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// A Name is what an operator calls an address or a network.
type Name struct {
	Prefix netip.Prefix
	Name   string
}

// remotes names the remote ends of flows: the namespaces of this host by their
// addresses, and the rest as the operator does. Nobody is asked for a name.
type remotes struct {
	given []Name // the longest prefixes first
	here  map[netip.Addr]string
}

func newRemotes(names []Name) remotes {
	given := slices.Clone(names)
	slices.SortStableFunc(given, func(a, b Name) int { return cmp.Compare(b.Prefix.Bits(), a.Prefix.Bits()) })
	return remotes{given: given, here: map[netip.Addr]string{}}
}

// learn notes which namespace has which address. One that two have, as networks
// that don't know of each other do, is nobody's.
func (r *remotes) learn(all []*snapshot.Namespace) {
	clear(r.here)
	for _, ns := range all {
		for _, s := range ns.Addresses {
			a, err := netip.ParseAddr(s)
			if err != nil {
				continue
			}
			name := ns.Name
			if _, twice := r.here[a]; twice {
				name = ""
			}
			r.here[a] = name
		}
	}
}

// name writes the names into the flows.
func (r *remotes) name(all []*snapshot.Namespace) {
	if len(r.given) == 0 && len(r.here) == 0 {
		return
	}
	for _, ns := range all {
		for i := range ns.Flows {
			f := &ns.Flows[i]
			if a, err := netip.ParseAddr(f.Remote); err == nil {
				f.RemoteName = r.of(a.WithZone(""))
			}
		}
	}
}

func (r *remotes) of(a netip.Addr) string {
	if name := r.here[a]; name != "" {
		return name
	}
	for i := range r.given {
		if r.given[i].Prefix.Contains(a) {
			return r.given[i].Name
		}
	}
	return ""
}

// maxAddresses is how many addresses of a namespace are noted.
const maxAddresses = 16

// addresses are those of the calling thread's namespace by which others reach
// it.
func addresses() []string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // names are a help, no more
	}
	var out []string
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().IsGlobalUnicast() && len(out) < maxAddresses {
			out = append(out, ip.Unmap().String())
		}
	}
	return out
}
