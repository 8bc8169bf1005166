package truth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/twwatch/twwatch/collector"
	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/diagnose"
	"github.com/twwatch/twwatch/internal/lab"
)

// A scene is a namespace in which something is wrong, or nothing, and what must
// be found there: that, and at no time anything else.
type scene struct {
	name string
	ns   *lab.Namespace
	// program is who has to be known before the load, since what it does then is
	// over before a search of all processes could come to it; nil: nobody.
	program *puppet
	load    func()   // begins once everything is watched; nil: nothing does
	want    []string // findings, as headlines
	also    []string // may be there before the end
	// once: the trouble was over when it had happened, so that a single look later
	// doesn't find it. It finds all others in three seconds.
	once bool

	// ready tells what the end still lacks, check what is wrong at it; either may
	// be nil.
	ready func(r *snapshot.Report) error
	check func(t *testing.T, r *snapshot.Report)

	w   *watch
	end *snapshot.Report // the first that is as it has to be
}

// watchedFor is how long each scene is watched at least: connections are a load
// only when they have gone on for two spans of five seconds.
const watchedFor = 13 * time.Second

// Each trouble gives its finding and no other. All of them happen at once, each
// in namespaces of its own.
func TestEachItsFindingAndNoOther(t *testing.T) {
	t.Parallel()
	lab.Require(t, "veth")
	var scenes []*scene
	for _, set := range []func(*testing.T) []*scene{
		lingers, closesUnread, remoteCloses, healthChecks, buckets,
		udpWithoutPorts, deadDestination, snatRunsDry, clientsBehindNAT,
		synFlood, synFloodWithoutCookies, acceptQueue, starvedListener,
	} {
		scenes = append(scenes, set(t)...)
	}
	for _, s := range scenes {
		s.w = newWatch(t, s.ns, collector.Config{Interval: 2 * time.Second}, nil)
	}
	for _, s := range scenes { // a moment, unless the machine is full of processes
		s.w.until(t, 3*time.Minute, s.knowsProgram)
	}
	for _, s := range scenes {
		if s.load != nil {
			s.load()
		}
	}
	began := time.Now()
	lab.Eventually(t, 3*time.Minute, func() error {
		var missing []error
		for _, s := range scenes {
			if err := s.findEnd(began.Add(watchedFor)); err != nil {
				missing = append(missing, fmt.Errorf("%s: %w", s.name, err))
			}
		}
		return errors.Join(missing...)
	})
	single := make([]func() ([]string, error), len(scenes))
	for i, s := range scenes {
		single[i] = s.singleLook(t.Context())
	}
	for i, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			s.w.only(t, append(slices.Clone(s.want), s.also...)...)
			if s.check != nil {
				s.check(t, s.end)
			}
			found := must[[]string](t)(single[i]())
			if diff := cmp.Diff(s.want, found, cmpopts.EquateEmpty()); diff != "" && !s.once {
				t.Errorf("findings of a single look (-want +got):\n%s", diff)
			}
		})
	}
}

// findEnd looks for the scene's end, after a time.
func (s *scene) findEnd(after time.Time) error {
	if s.end != nil {
		return nil
	}
	err := errors.New("no report yet")
	for _, r := range s.w.all() {
		if r.Time.Before(after) {
			continue
		}
		if err = s.ends(r); err == nil {
			s.end = r
			return nil
		}
		err = fmt.Errorf("%w; %s", err, said(r))
	}
	return err
}

// singleLook finds what `twwatch check` does; done waits for it.
func (s *scene) singleLook(ctx context.Context) (done func() ([]string, error)) {
	var found []string
	wait := s.ns.Go(func() error {
		library, err := advice.Load()
		if err != nil {
			return err
		}
		c, err := collector.New(collector.Config{Knowledge: library})
		if err != nil {
			return err
		}
		defer c.Close()
		window, err := c.Look(ctx, 3*time.Second)
		if err == nil {
			found = headlinesOf(diagnose.Judge(window, nil, diagnose.Settings{Advice: library}).Findings)
		}
		return err
	})
	return func() ([]string, error) { err := wait(); return found, err }
}

func headlinesOf(findings []snapshot.Finding) []string {
	var all []string
	for i := range findings {
		all = append(all, headline(&findings[i]))
	}
	return all
}

// ends tells what a report lacks to be the one at the end.
func (s *scene) ends(r *snapshot.Report) error {
	if diff := cmp.Diff(s.want, headlinesOf(r.Findings)); diff != "" {
		return fmt.Errorf("findings (-want +got):\n%s", diff)
	}
	if s.ready != nil {
		return s.ready(r)
	}
	return nil
}

// keptPort is where programs keep a connection, so that they are known by it.
const keptPort = 999

// keep starts the scene's program, with a connection to a server that it keeps.
func (s *scene) keep(t *testing.T, name string, server *lab.Namespace, address string) *puppet {
	t.Helper()
	at := fmt.Sprintf("%s:%d", address, keptPort)
	must[*lab.Server](t)(server.Listen(addrPort(at), lab.ListenOptions{Mode: lab.Never}))
	s.program = newPuppet(t, s.ns, name)
	s.program.do("dial %s 1", at)
	return s.program
}

func (s *scene) knowsProgram(r *snapshot.Report) error {
	kept := func(f snapshot.Flow) bool {
		return f.Side == snapshot.Client && f.Port == keptPort && len(f.Processes) > 0
	}
	if s.program != nil && !slices.ContainsFunc(r.Namespaces[0].Flows, kept) {
		return fmt.Errorf("%s isn't known yet", s.program.name)
	}
	return nil
}

// programNamed tells whether the first finding names its program.
func programNamed(r *snapshot.Report) error {
	if r.Findings[0].Subject.Process == "" {
		return errors.New("no program is named")
	}
	return nil
}

// about fails the test unless the first finding is about this end of the
// connections, of this program, and has these remedies.
func about(t *testing.T, r *snapshot.Report, want snapshot.Subject, remedies ...string) *snapshot.Finding {
	t.Helper()
	f := &r.Findings[0]
	if diff := cmp.Diff(want, f.Subject); diff != "" {
		t.Errorf("subject (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(remedies, recommended(f)); diff != "" {
		t.Errorf("remedies (-want +got):\n%s", diff)
	}
	if !strings.Contains(f.Summary, want.Process) {
		t.Errorf("%s isn't named: %s", want.Process, f.Summary)
	}
	return f
}

// near and far are two hosts on one wire.
const (
	near = "10.77.0.1"
	far  = "10.77.0.2"
)

func hosts(t *testing.T) (a, b *lab.Namespace) {
	t.Helper()
	a, b = lab.NewT(t), lab.NewT(t)
	if err := a.AddVeth("near", netip.MustParsePrefix(near+"/24"), b, "far", netip.MustParsePrefix(far+"/24")); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// each does something in the namespace in each pause, until the test ends.
func each(t *testing.T, ns *lab.Namespace, pause time.Duration, do func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	wait := ns.Go(func() error {
		for ctx.Err() == nil {
			if err := do(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
		return nil
	})
	t.Cleanup(func() {
		cancel()
		if err := wait(); err != nil {
			t.Error(err)
		}
	})
}
