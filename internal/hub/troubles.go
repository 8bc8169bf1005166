package hub

import (
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
)

const (
	// SourceStage is the stage of a source's error that names none itself.
	SourceStage = "source"
	// OtherStage takes the errors of further stages, where a source names
	// more than are counted one by one.
	OtherStage = "other"

	maxStages = 16
	maxStage  = 64 // bytes of a stage's name
	// holdOff is how long the same error isn't logged again.
	holdOff     = 10 * time.Minute
	maxDistinct = 64   // errors told apart within the hold-off
	maxKey      = 1024 // bytes by which they are told apart
)

// troubles counts errors by stage, and logs each distinct one once in a while.
type troubles struct {
	logger *slog.Logger

	errMu  sync.Mutex
	counts map[string]uint64
	logged map[string]*repeated

	limited map[string]time.Time // when such a lack was last met
}

type repeated struct {
	at   time.Time
	more uint64 // since then
}

// Errors returns how many errors each stage has had: one for an error of the
// source, one for each gap of each report.
func (t *troubles) Errors() map[string]uint64 {
	t.errMu.Lock()
	defer t.errMu.Unlock()
	return maps.Clone(t.counts)
}

func (t *troubles) add(stage string, n uint64) {
	t.errMu.Lock()
	defer t.errMu.Unlock()
	if stage == "" {
		stage = SourceStage
	}
	if _, known := t.counts[stage]; !known && (len(t.counts) >= maxStages-1 || len(stage) > maxStage) {
		stage = OtherStage
	}
	t.counts[stage] += n
}

// trouble takes an error of the source. It may name its stage by a method
// Stage() string.
func (t *troubles) trouble(err error) {
	stage := SourceStage
	if s, ok := errors.AsType[interface {
		error
		Stage() string
	}](err); ok {
		stage = s.Stage()
	}
	t.add(stage, 1)
	t.log("looking failed", stage+"\x00"+err.Error(), "stage", stage, "err", err)
}

func (t *troubles) gap(g *snapshot.Gap) {
	t.add(g.Stage, 1)
	t.log("the report is incomplete", g.Stage+"\x00"+g.Namespace+"\x00"+g.Error,
		"stage", g.Stage, "netns", g.Namespace, "err", g.Error, "lost", g.Lost, "fix", g.Fix)
}

// limit logs a lack when it is met first, and again only after it was gone for as
// long as the hold-off. It is no error, and its numbers may change all the time.
func (t *troubles) limit(g *snapshot.Gap) {
	now := time.Now()
	key := g.Stage + "\x00" + g.Lost + "\x00" + g.Fix
	key = strings.Clone(key[:min(len(key), maxKey)])
	maps.DeleteFunc(t.limited, func(_ string, at time.Time) bool { return now.Sub(at) >= holdOff })
	_, known := t.limited[key]
	if !known && len(t.limited) >= maxDistinct {
		return
	}
	if t.limited == nil {
		t.limited = make(map[string]time.Time)
	}
	t.limited[key] = now
	if !known {
		t.logger.Info("not everything is looked at", "stage", g.Stage, "err", g.Error, "lost", g.Lost, "fix", g.Fix)
	}
}

func (t *troubles) log(text, key string, args ...any) {
	now := time.Now()
	key = strings.Clone(key[:min(len(key), maxKey)])
	t.errMu.Lock()
	if t.logged == nil {
		t.logged = make(map[string]*repeated)
	}
	known := t.logged[key]
	if known != nil && now.Sub(known.at) < holdOff {
		known.more++
		t.errMu.Unlock()
		return
	}
	if known == nil {
		maps.DeleteFunc(t.logged, func(_ string, r *repeated) bool { return now.Sub(r.at) >= holdOff })
		if len(t.logged) >= maxDistinct {
			t.errMu.Unlock()
			return
		}
		known = &repeated{}
		t.logged[key] = known
	}
	if known.more > 0 {
		args = append(args, "repeated", known.more)
	}
	*known = repeated{at: now}
	t.errMu.Unlock()
	t.logger.Warn(text, args...)
}
