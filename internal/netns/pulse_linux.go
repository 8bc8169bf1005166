package netns

import "fmt"

// Pulse reads two small files of a namespace: through a process in it, which
// needs no right that Refresh doesn't need, or by a visit if only a mount holds
// it. ErrGone says that the process isn't there any more: the next Refresh knows
// another one, or that the namespace is gone.
func (w *Watcher) Pulse(n *Namespace) (Pulse, error) {
	if n.place == nil {
		return Pulse{}, ErrGone
	}
	pid := n.place.pid
	if pid == 0 {
		var p Pulse
		err := w.Visit(n, func() (err error) {
			p, err = w.readPulse("thread-self/net/")
			return err
		})
		return p, err
	}
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
