package lab

import (
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddAddress gives loopback another address ("10.0.0.5/32"). 127.0.0.0/8 needs
// none.
func (ns *Namespace) AddAddress(p netip.Prefix) error { return ns.AddAddressTo("lo", p) }

// AddAddressTo gives a device an address, at once usable (IPv6 without
// duplicate address detection).
func (ns *Namespace) AddAddressTo(device string, p netip.Prefix) error {
	return ns.onLink(device, "add "+p.String()+" to", func(link netlink.Link) error {
		return netlink.AddrAdd(link, address(p))
	})
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: netlink.NewIPNet(p.Addr().AsSlice())}
	a.Mask = netmask(p)
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func netmask(p netip.Prefix) []byte {
	m := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// AddSink makes a device that swallows what is sent: a SYN into its network
// stays SYN_SENT. (A pair of devices, name and name_: not every kernel has the
// dummy device.)
func (ns *Namespace) AddSink(name string, addrs ...netip.Prefix) error {
	err := ns.addPair(name, ns, name+"_")
	if err == nil {
		// Without ARP the frames bear the device's own address, and the other end
		// drops them.
		err = ns.onLink(name, "stop ARP on", netlink.LinkSetARPOff)
	}
	for _, p := range addrs {
		if err == nil {
			err = ns.AddAddressTo(name, p)
		}
	}
	return err
}

// AddVeth joins two namespaces by a pair of devices with one address each. Two
// pairs between the same namespaces make two devices for SO_BINDTODEVICE:
// listen with a Device on the far side, so that replies take the same way.
func (ns *Namespace) AddVeth(name string, addr netip.Prefix, peer *Namespace, peerName string, peerAddr netip.Prefix) error {
	if err := ns.addPair(name, peer, peerName); err != nil {
		return err
	}
	if err := ns.AddAddressTo(name, addr); err != nil {
		return err
	}
	return peer.AddAddressTo(peerName, peerAddr)
}

// addPair makes a pair of devices and returns when both carry packets.
func (ns *Namespace) addPair(name string, peer *Namespace, peerName string) error {
	err := ns.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return deviceStep("make the veth pair "+name+", "+peerName, netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.fd),
		}))
	})
	type end struct {
		ns   *Namespace
		name string
	}
	ends := []end{{ns, name}, {peer, peerName}}
	for _, e := range ends {
		if err == nil {
			err = e.ns.bringUp(e.name)
		}
	}
	for _, e := range ends {
		if err == nil {
			err = e.ns.awaitCarrier(e.name)
		}
	}
	return err
}

func (ns *Namespace) bringUp(device string) error {
	// Two pairs in one network make asymmetric routes.
	for _, conf := range []string{"all", device} {
		if err := ns.Sysctl("net/ipv4/conf/"+conf+"/rp_filter", "0"); err != nil {
			return err
		}
	}
	return ns.onLink(device, "bring up", netlink.LinkSetUp)
}

// awaitCarrier: until the kernel has noticed the other end, packets are lost.
func (ns *Namespace) awaitCarrier(device string) error {
	return poll(time.Second, func() error {
		return ns.onLink(device, "wait for the carrier of", func(link netlink.Link) error {
			if state := link.Attrs().OperState; state != netlink.OperUp {
				return errors.New("the device is " + state.String())
			}
			return nil
		})
	})
}

func (ns *Namespace) onLink(device, op string, fn func(netlink.Link) error) error {
	return ns.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err == nil {
			err = fn(link)
		}
		return deviceStep(op+" "+device, err)
	})
}

// AddRoute sends a network's packets through a device, without a gateway.
func (ns *Namespace) AddRoute(dst netip.Prefix, device string) error {
	return ns.onLink(device, "add a route to "+dst.String()+" through", func(link netlink.Link) error {
		return netlink.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: address(dst.Masked()).IPNet, Scope: netlink.SCOPE_LINK,
		})
	})
}

func linkIndex(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, deviceStep("find device "+name, err)
	}
	return link.Attrs().Index, nil
}

func deviceStep(op string, err error) error {
	if err == nil {
		return nil
	}
	fix := ""
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		fix = "this kernel lacks the kind of device"
	case errors.Is(err, unix.EPERM):
		fix = "needs CAP_NET_ADMIN in the namespace"
	}
	return &Error{op, err, fix}
}
