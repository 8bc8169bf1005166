package snapshot

import "slices"

// Bounds of what of a namespace is kept by [Namespace.Cut].
type Bounds struct {
	Flows, CloseWaits, Listeners, Owners, HalfOpen int
}

// Cut returns a copy of a namespace with the first of its flows and rows, in the
// order that they are in. What it leaves out of the flows is in Omitted, so that
// sums still close. The original stays as it is; the copy shares what both have.
func (n *Namespace) Cut(b Bounds) *Namespace {
	c := *n
	kept := min(len(n.Flows), b.Flows)
	c.Flows = first(n.Flows, kept)
	for i := range n.Flows[kept:] {
		f := &n.Flows[kept+i]
		c.Omitted.States.Add(&f.States)
		c.Omitted.Births += f.Births
		c.Omitted.Flows++
	}
	c.CloseWaits = first(n.CloseWaits, b.CloseWaits)
	c.Listeners = first(n.Listeners, b.Listeners)
	c.Owners = first(n.Owners, b.Owners)
	c.HalfOpen = first(n.HalfOpen, b.HalfOpen)
	return &c
}

// first is the beginning of a list; it doesn't hold on to the rest.
func first[T any](list []T, n int) []T {
	switch {
	case n >= len(list):
		return list
	case n == 0:
		return nil
	}
	return slices.Clone(list[:n])
}
