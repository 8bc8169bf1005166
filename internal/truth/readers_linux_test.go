package truth

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twwatch/twwatch/internal/lab"
)

// Bounds of the daemon with many readers, in KiB resident: what it may have with
// none, and what 200 streams and 200 scrapes at once may add (a connection, its
// buffers and a goroutine: some 50 KiB each; a report's bytes are shared).
const (
	aloneKiB   = 48 << 10
	readersKiB = 24 << 10
)

// dialler connects from within a namespace.
func dialler(ns *lab.Namespace) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = ns.Do(func() error {
			c, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}
}

// openStream asks the daemon for its stream; nothing of the answer is read.
func openStream(t *testing.T, ns *lab.Namespace, coding string) net.Conn {
	t.Helper()
	c := must[net.Conn](t)(dialler(ns)(t.Context(), "tcp", pageAddress))
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintf(c, "GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: %s\r\n\r\n", coding); err != nil {
		t.Fatal(err)
	}
	return c
}

// A timeline is when the passes were made that somebody has seen.
type timeline struct {
	mu    sync.Mutex
	times map[string]int // times seen, by readers
}

func (l *timeline) add(when string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[when]++
}

// seen are the passes that at least so many have seen, in their order.
func (l *timeline) seen(by int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(maps.Collect(func(yield func(string, int) bool) {
		for when, n := range l.times {
			if n >= by && !yield(when, n) {
				return
			}
		}
	})))
}

var reportTime = regexp.MustCompile(`^data: \{"schema":"twwatch.report/v1",.*?"time":"([^"]+)"`)

// follow reads a stream to its end, and returns the data of its last event.
func (l *timeline) follow(c net.Conn) (last string, err error) {
	reply, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodGet})
	if err != nil {
		return "", err
	}
	if reply.StatusCode != http.StatusOK {
		return "", errors.New(reply.Status)
	}
	body := io.Reader(reply.Body)
	if reply.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return "", err
		}
	}
	lines := bufio.NewReaderSize(body, 4<<10)
	for {
		line, more, err := lines.ReadLine() // of a report its beginning
		if err != nil {
			return last, err
		}
		if bytes.HasPrefix(line, []byte("data: ")) {
			last = string(line)
			if m := reportTime.FindSubmatch(line); m != nil {
				l.add(string(m[1]))
			}
		}
		for more && err == nil {
			_, more, err = lines.ReadLine()
		}
	}
}

// TestManyReaders opens 200 streams and makes 200 scrapes at once, three times:
// there is one pass for each interval all the same, memory stays bounded, and
// readers that take nothing are dropped with a word.
func TestManyReaders(t *testing.T) {
	t.Parallel()
	lab.Require(t, "netns")
	const streams, watched, scrapes, rounds, idle, rows = 200, 20, 200, 3, 5, 5000
	ns := lab.NewT(t)
	if filled, err := ns.FillTimeWait(t.Context(), lab.Fill{Rows: rows, Remotes: 1000}); err != nil || filled.Rows != rows {
		t.Fatalf("%+v, %v", filled, err)
	}
	// So that who takes nothing is seen soon; those who do have 8 s for an event.
	sysctls(t, ns, "net.ipv4.tcp_rmem", "4096 16384 65536", "net.ipv4.tcp_wmem", "4096 16384 65536")
	d := serve(t, ns, "--interval=2s", "--cpu-budget=1")
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialler(ns)}}
	lab.Eventually(t, 30*time.Second, func() error {
		_, err := scrape(client)
		return err
	})
	alone := residentKiB(t, d)

	passes := &timeline{times: map[string]int{}}
	var conns []net.Conn
	var readers sync.WaitGroup
	for i := range streams {
		c := openStream(t, ns, map[bool]string{true: "identity", false: "gzip"}[i%10 == 0])
		conns = append(conns, c)
		readers.Go(func() {
			var last string
			var err error
			if i < watched {
				last, err = passes.follow(c)
			} else if _, err = io.Copy(io.Discard, c); err == nil { // unpacking them all would take the processors
				err = io.EOF
			}
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("a stream ended: %v, after %.100s", err, last)
			}
		})
	}
	var slow []net.Conn
	for range idle {
		slow = append(slow, openStream(t, ns, "identity"))
	}
	lab.Eventually(t, 60*time.Second, func() error {
		if n := len(passes.seen(watched)); n < 2 {
			return fmt.Errorf("%d passes seen by all %d streams that are watched", n, watched)
		}
		return nil
	})
	scraped := &timeline{times: map[string]int{}}
	refused := 0
	for range rounds {
		var mu sync.Mutex
		var all sync.WaitGroup
		for range scrapes {
			all.Go(func() {
				when, err := scrape(client)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case errors.Is(err, errBusy): // with a word, where the machine is slower than 200 scrapes in 5 s
					refused++
				case err != nil:
					t.Error(err)
				default:
					scraped.add(when)
				}
			})
		}
		all.Wait()
	}
	if refused > rounds*scrapes/2 {
		t.Errorf("%d of %d scrapes were refused", refused, rounds*scrapes)
	}
	lab.Eventually(t, 90*time.Second, func() error {
		if n := strings.Count(d.log.String(), "dropped a reader that is too slow"); n < idle {
			return fmt.Errorf("%d of %d readers that take nothing were dropped", n, idle)
		}
		return nil
	})
	for _, c := range slow {
		if last, err := passes.follow(c); !errors.Is(err, io.EOF) || !strings.Contains(last, "lags behind") {
			t.Errorf("a reader that took nothing was dropped by %v, after %.100s", err, last)
		}
	}
	together := residentKiB(t, d)
	for _, c := range conns {
		c.Close()
	}
	readers.Wait()

	// Passes are numbered by nothing, but each has its time: none is known to one
	// reader alone, and there are no more than there are intervals.
	known := passes.seen(1)
	first, last := must[time.Time](t)(time.Parse(time.RFC3339Nano, known[0])), must[time.Time](t)(time.Parse(time.RFC3339Nano, known[len(known)-1]))
	if most := int(last.Sub(first)/(2*time.Second)) + 2; len(known) > most {
		t.Errorf("%d passes in %v, want at most %d", len(known), last.Sub(first), most)
	}
	var seconds []string
	for _, when := range known {
		seconds = append(seconds, fmt.Sprintf("%.3f", float64(must[time.Time](t)(time.Parse(time.RFC3339Nano, when)).UnixMilli())/1000))
	}
	for _, when := range scraped.seen(1) {
		if !slices.Contains(seconds, when) {
			t.Errorf("a scrape shows a pass of %s that no stream has: %v", when, seconds)
		}
	}
	t.Logf("%d passes in %v, with %d streams; %d scrapes, %d refused; resident alone %d KiB, with all at its peak %d KiB", len(known), last.Sub(first), streams, rounds*scrapes, refused, alone, together)
	if alone > aloneKiB || together-alone > readersKiB {
		t.Errorf("resident: alone %d KiB, want at most %d; %d more with all readers, want at most %d", alone, aloneKiB, together-alone, readersKiB)
	}
}

var errBusy = errors.New("too many requests at once")

// scrape reads /metrics, and returns when the pass that it shows began: seconds
// since 1970, to the millisecond.
func scrape(client *http.Client) (when string, err error) {
	reply, err := client.Get("http://" + pageAddress + "/metrics")
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return "", err
	}
	if reply.StatusCode == http.StatusServiceUnavailable && bytes.Contains(body, []byte(`{"error":"too many requests at once`)) {
		return "", errBusy
	}
	var f float64
	m := regexp.MustCompile(`(?m)^twwatch_last_collect_timestamp_seconds (\S+)$`).FindSubmatch(body)
	if reply.StatusCode != http.StatusOK || m == nil {
		return "", fmt.Errorf("%s: %.200s", reply.Status, body)
	}
	if _, err := fmt.Sscan(string(m[1]), &f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%.3f", f), nil
}

// residentKiB is the most that the daemon has had resident so far.
func residentKiB(t *testing.T, d *serving) (peak int) {
	t.Helper()
	status := must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid)))
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &peak) // another line
	}
	if peak == 0 {
		t.Fatalf("no VmHWM: %s", status)
	}
	return peak
}
