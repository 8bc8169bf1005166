package netns

import (
	"errors"
	"fmt"
)

// Pulse reads two small files of a namespace: through a process in it, which
// needs no right that Refresh doesn't need, or by a visit if only a mount holds
// it. ErrGone says that the process isn't there any more: the next Refresh knows
// another one, or that the namespace is gone.
func (w *Watcher) Pulse(n *Namespace) (Pulse, error) {
	if n.place == nil {
		return Pulse{}, ErrGone
	}
	if pid := n.place.pid; pid != 0 {
		p, err := w.pulseOf(n, pid)
		n.place.doubt = n.place.doubt || errors.Is(err, ErrGone)
		return p, err
	}
	var p Pulse
	err := w.Visit(n, func() (err error) {
		p, err = w.readPulse("thread-self/net/")
		return err
	})
	return p, err
}

func (w *Watcher) pulseOf(n *Namespace, pid int32) (Pulse, error) {
	p, err := w.readPulse(ofProcess(pid, "net/"))
	if err != nil {
		return Pulse{}, err
	}
	// The process is in the namespace of this number still, and that is the one
	// that the token is of.
	inode, err := w.proc.namespace(ofProcess(pid, "ns/net"), "net")
	if err != nil || inode != n.Inode || n.token >= 0 && dead(n.token) {
		return Pulse{}, fmt.Errorf("netns: read process %d: %w", pid, ErrGone)
	}
	return p, nil
}

func (w *Watcher) readPulse(dir string) (Pulse, error) {
	var p Pulse
	if err := w.readInto(dir+"snmp", p.parseSegments); err != nil {
		return Pulse{}, err
	}
	if err := w.readInto(dir+"sockstat", p.parseSockets); err != nil {
		return Pulse{}, err
	}
	return p, nil
}

func (w *Watcher) readInto(name string, parse func([]byte) error) error {
	text, err := w.proc.read(name, w.text)
	if err == nil {
		err = parse(text)
	} else if vanished(err) {
		err = ErrGone
	}
	if err != nil {
		return &Error{Op: "read", Path: w.config.Proc + "/" + name, Err: err}
	}
	return nil
}
