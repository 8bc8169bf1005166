package collector

import (
	"context"
	"fmt"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/netns"
)

// A namer tells what namespaces are called.
type namer struct{}

func (n *namer) refresh(context.Context, *snapshot.Report) {}

func (n *namer) name(o *other) {
	o.named = named{name: o.Name, kind: o.Kind}
	if o.named.name == "" {
		o.named.name = fmt.Sprintf("net:[%d]", o.Inode)
	}
}

func newSweep(c *Collector, cfg netns.Config) (*sweep, error) {
	if err := c.cfg.Namespaces.Check(); err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	cfg.Proc = c.cfg.Proc
	w, err := netns.NewWatcher(cfg)
	if err != nil {
		return nil, err
	}
	return &sweep{watcher: w, chosen: c.cfg.Namespaces, others: map[uint64]*other{}}, nil
}
