package truth

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
	"github.com/twwatch/twwatch/internal/hub"
	"github.com/twwatch/twwatch/internal/web"
)

// incident is the n-th report of a host on which several things are wrong.
func incident(n int) *snapshot.Report {
	taken := time.Date(2026, 3, 14, 3, 15, 0, 0, time.UTC).Add(time.Duration(n) * 2 * time.Second)
	minute := make([]uint32, 60)
	for i := range minute {
		minute[i] = uint32(440 + (i*37+n*11)%60)
	}
	tw := uint32(26000 + 40*n)
	ns := &snapshot.Namespace{
		Name: "host", Inode: 4026531840, Kind: "host", SampledAt: taken, CoveredSeconds: 2, Source: "inet_diag",
		States: snapshot.States{
			Established: 212, SynSent: 3, SynRecv: 5, FinWait1: 2, FinWait2: 17, TimeWait: tw + 900, CloseWait: 46, LastAck: 1, Listen: 9,
		},
		Counters: map[string]uint64{"ActiveOpens": uint64(10000 + 930*n), "PassiveOpens": uint64(500 + 20*n)},
		TimeWait: snapshot.TimeWait{BucketsUsed: int(tw) + 900, BucketsLimit: new(131072), OpenedPerSecond: minute, CloseRate: new(466.2), CloseRateBy: "timers"},
		Omitted:  snapshot.Omitted{Flows: 12},
	}
	ns.Flows = append(ns.Flows, snapshot.Flow{
		Side: snapshot.Client, Local: "10.20.30.40", Remote: "10.20.30.99", Port: 6379, Service: "redis", ServiceBy: "port",
		States: snapshot.States{Established: 2, TimeWait: tw}, CloseRate: new(465.0), MeanLifetimeSeconds: new(0.0043),
		OpenedPerSecond: minute, LongLived: new(uint32(1)),
		Ports: &snapshot.Ports{Range: 28232, Reserved: 5, Used: int(tw), Free: 28227 - int(tw), SecondsToExhaustion: new(41)},
		Processes: []snapshot.Process{
			{PID: 2210, PIDs: []int{2210, 2211}, Count: 2, Comm: "php-fpm", Exe: "/usr/sbin/php-fpm8.2", Cgroup: "/system.slice/php8.2-fpm.service", Sockets: 27, Share: 0.9, By: "inode"},
			{PID: 77, Count: 1, Comm: "cron", Sockets: 2, Share: 0.1, By: "cookie"},
		},
		Attributed: new(0.93),
	})
	for i := range 140 {
		f := snapshot.Flow{
			Side: snapshot.Client, Local: "10.20.30.40", Remote: fmt.Sprintf("10.9.%d.%d", i/20, i), Port: []uint16{443, 5432, 3306, 8080}[i%4],
			Service: []string{"https", "postgresql", "mysql", ""}[i%4], States: snapshot.States{Established: uint32(i % 7), TimeWait: uint32(3 * i)},
			CloseRate: new(float64(i) / 20), Ports: &snapshot.Ports{Range: 28232, Reserved: 5, Used: 3 * i, Free: 28227 - 3*i},
			Processes: []snapshot.Process{{PID: 400 + i%3, Count: 1, Comm: []string{"java", "app", "node"}[i%3], Sockets: 3, Share: 0.5, By: "inode"}},
		}
		if i%10 == 0 {
			f.Side, f.Ports, f.Local, f.Remote, f.Port, f.Service = snapshot.Server, nil, "10.20.30.40", fmt.Sprintf("10.8.0.%d", i), 8443, "https"
			f.States.CloseWait = uint32(i / 5)
		}
		ns.Flows = append(ns.Flows, f)
	}
	for i := range 24 {
		ns.CloseWaits = append(ns.CloseWaits, snapshot.CloseWait{
			Local: "10.20.30.40:8443", Remote: fmt.Sprintf("10.8.0.%d:%d", i, 40000+i), Cookie: uint64(i + 1), AgeSeconds: new(float64(60*i) + 12.5),
			RecvQ: uint32(i % 3), Side: snapshot.Server, Inode: uint32(i), PID: 2210, Comm: "php-fpm",
		})
	}
	r := &snapshot.Report{
		Schema: snapshot.Schema, Version: "0.2.0", Host: "web-17.example.net", Kernel: "6.12.9-amd64", BootID: "b", Time: taken,
		TookSeconds: 0.012, IntervalSeconds: 2, Verdict: snapshot.Critical, Namespaces: []*snapshot.Namespace{ns},
		Limited: []snapshot.Gap{{Stage: "owner", Error: "descriptors of other users' processes can't be read", Lost: "the processes of some sockets", Fix: "grant CAP_SYS_PTRACE"}},
	}
	subject := snapshot.Subject{Side: snapshot.Client, Local: "10.20.30.40", Remote: "10.20.30.99", Port: 6379, Service: "redis", Process: "php-fpm"}
	r.Findings = []snapshot.Finding{
		{
			ID: "short-connections-client", Severity: snapshot.Critical, Namespace: "host", Subject: subject, Since: taken.Add(-12 * time.Minute),
			Summary:  "php-fpm opens 465 connections/s to redis at 10.20.30.99:6379 and closes each after 4.3 ms; each leaves a TIME_WAIT for 60 s.",
			Evidence: []snapshot.Evidence{{What: "connections closed", Value: 465, Unit: "1/s", Source: "TIME_WAIT timers"}, {What: "lifetime", Value: 0.0043, Unit: "s", Source: "inet_diag"}},
			Recommendations: []snapshot.Recommendation{
				{ID: "php-redis-pconnect", Title: "Keep the connection to redis open between requests", Do: "Use pconnect() in place of connect(), and let each worker keep one connection.", Snippet: "// phpredis\n$redis->pconnect('10.20.30.99', 6379);", Effect: "about 32 connections, and no TIME_WAIT", Caveats: []string{"32 workers × 1 connection must stay below redis's maxclients: CONFIG GET maxclients shows it."}, References: []string{"https://github.com/phpredis/phpredis#pconnect-popen", "javascript:alert(1)"}},
				{ID: "more-tuples", Title: "More 4-tuples", Do: "Let redis listen on a second port.", Caveats: []string{}, References: []string{}},
			},
		},
		{
			ID: "ephemeral-ports-running-out", Severity: snapshot.Critical, Namespace: "host", Subject: subject, BecauseOf: "short-connections-client",
			Summary:  "Ports from 10.20.30.40 to 10.20.30.99:6379 run out: 2,200 of 28,227 left.",
			Evidence: []snapshot.Evidence{}, Recommendations: []snapshot.Recommendation{},
		},
		{
			ID: "close-wait-leak", Severity: snapshot.Warning, Namespace: "host", Subject: snapshot.Subject{Side: snapshot.Server, Local: "10.20.30.40", Port: 8443, Process: "php-fpm"},
			Summary:  "46 connections on port 8443 wait for a close() that doesn't come, the oldest for 23 min.",
			Evidence: []snapshot.Evidence{{What: "CLOSE_WAIT", Value: 46, Unit: "sockets", Source: "inet_diag"}}, Recommendations: []snapshot.Recommendation{},
		},
		{
			ID: "time-wait-harmless", Severity: snapshot.Info, Namespace: "host", Summary: "900 connections are in TIME_WAIT on listening ports, which costs nothing.",
			Evidence: []snapshot.Evidence{}, Recommendations: []snapshot.Recommendation{},
		},
	}
	return r
}

// A pageSite serves the page with reports that the test hands over.
type pageSite struct {
	t       *testing.T
	address string
	reports chan *snapshot.Report
	hub     *hub.Hub
	stop    func() // ends the server that runs
}

func newPageSite(t *testing.T) *pageSite {
	t.Helper()
	s := &pageSite{t: t, address: "127.0.0.1:0", reports: make(chan *snapshot.Report)}
	s.hub = hub.New(hub.Config{Source: func(ctx context.Context) iter.Seq2[*snapshot.Report, error] {
		return func(yield func(*snapshot.Report, error) bool) {
			for {
				select {
				case <-ctx.Done():
					return
				case r := <-s.reports:
					if !yield(r, nil) {
						return
					}
				}
			}
		}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.hub.Run(ctx) })
	t.Cleanup(func() {
		s.stop()
		cancel()
		wg.Wait()
	})
	s.serve()
	return s
}

// serve begins to answer, as a daemon that was started does.
func (s *pageSite) serve() {
	s.t.Helper()
	done := make(chan struct{})
	library := must[*advice.Library](s.t)(advice.Load())
	srv := httptest.NewUnstartedServer(nil)
	_ = srv.Listener.Close() // it has one of its own choice
	srv.Listener = web.Listener(must[net.Listener](s.t)(net.Listen("tcp", s.address)))
	srv.Config = web.Server(web.Handler(web.Config{Hub: s.hub, Metrics: prometheus.NewRegistry(), Library: library, Version: "0.2.0", Done: done}), nil)
	srv.Start()
	s.address = srv.Listener.Addr().String()
	s.stop = sync.OnceFunc(func() {
		close(done)
		srv.Close()
	})
}

func (s *pageSite) url() string { return "http://" + s.address + "/" }

func (s *pageSite) publish(r *snapshot.Report) { s.reports <- r }

// shows waits until the page shows a report.
func (b *browser) shows(r *snapshot.Report) {
	b.t.Helper()
	b.eventually(`document.querySelector("#age").title === %q`, r.Time.Format(time.RFC3339Nano))
}

// counts are the diagram's numbers, as the report names the states.
func (b *browser) counts() map[string]string {
	b.t.Helper()
	return eval[map[string]string](b, `Object.fromEntries([...document.querySelectorAll("[data-count]")].map((e) => [e.dataset.count, e.textContent]))`)
}

// TestPage shows made-up reports in a real browser.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newPageSite(t)
	s.publish(incident(0))
	s.publish(incident(1))
	b := open(t, nil, s.url())
	b.shows(incident(1))
	s.publish(incident(2))
	b.shows(incident(2))
	for _, part := range []struct {
		name string
		test func(*testing.T, *pageSite, *browser)
	}{
		{"report", pageShowsReport},
		{"table", pageTable},
		{"keys", pageKeys},
		{"in place", pageUpdatesInPlace},
		{"barriers", pageHasNoBarriers},
		{"namespaces", pageNamespaces},
		{"hostile", pageTakesNothingForMarkup},
		{"old", pageSaysWhatIsOld},
	} {
		ok := t.Run(part.name, func(t *testing.T) {
			b.t, s.t = t, t
			part.test(t, s, b)
		})
		b.t, s.t = t, t
		if !ok {
			b.shoot("failed " + part.name)
		}
	}
}

// What the report says first stands first, and every number is the report's.
func pageShowsReport(t *testing.T, _ *pageSite, b *browser) {
	for selector, want := range map[string]string{
		"#verdict-text": "Critical", "#host": "web-17.example.net", "#kernel": "Linux 6.12.9-amd64", "#version": "twwatch 0.2.0",
		"#lede":        "php-fpm opens 465 connections/s to redis at 10.20.30.99:6379 and closes each after 4.3 ms; each leaves a TIME_WAIT for 60 s.",
		"#notes-title": "1 note", "#gaps-title": "What was not looked at", "#flow-count": "141 flows; 12 more are not listed", "#cw-none": "The oldest 12 of 46.",
		"#finding-none": "", "#flow-none": "", "#banner": "",
	} {
		if got := b.text(selector); got != want {
			t.Errorf("%s is %q, want %q", selector, got, want)
		}
	}
	for selector, want := range map[string][]string{
		"#finding-list .finding > details > summary > .summary": {incident(2).Findings[0].Summary, incident(2).Findings[2].Summary},
		"#finding-list .consequences li > span:nth-child(2)":    {" " + incident(2).Findings[1].Summary}, // under its cause
		"#figures .number": {"26,980", "466", "92 %", "46", "212"},
		"[data-rate]":      {"Δ 0/s", "10/s →", "465/s", "Δ 0/s", "Δ 0/s", "Δ 0/s", "Δ 0/s", "466/s", "Δ 0/s", "Δ 0/s"},
		"main h2":          {"Findings", "Where connections are", "Closes, the last minute", "Flows", "CLOSE_WAIT", "The last minutes"},
	} {
		if got := b.texts(selector); !slices.Equal(got, want) {
			t.Errorf("%s are\n%q, want\n%q", selector, got, want)
		}
	}
	counts := b.counts()
	for name, n := range incident(2).Namespaces[0].States.Named {
		if name == "close" { // which is no state of a connection
			continue
		}
		if got := strings.ReplaceAll(counts[name], ",", ""); got != fmt.Sprint(n) {
			t.Errorf("%s: the diagram shows %q, want %d", name, got, n)
		}
	}
	if marks := eval[map[string]string](b, `Object.fromEntries([...document.querySelectorAll(".state[data-mark]")].map((e) => [e.dataset.state, e.dataset.mark]))`); len(marks) != 2 ||
		marks["time_wait"] != "critical" || marks["close_wait"] != "warning" {
		t.Errorf("marked are %v", marks)
	}
	minute := incident(2).Namespaces[0].TimeWait.OpenedPerSecond
	bars := eval[[]float64](b, `[...document.querySelectorAll(".second")].map((e) => Number(e.getAttribute("height")))`)
	for i, height := range bars { // 118 pixels for 500, the end of the axis
		if want := float64(minute[i]) / 500 * 118; len(bars) != 60 || height < want-0.1 || height > want+0.1 {
			t.Fatalf("bar %d of %d is %v pixels high, want %v", i, len(bars), height, want)
		}
	}
	b.eventually(`document.querySelectorAll("#history-charts figure").length === 4`) // asked for by itself
	b.eventually(`document.querySelector("#history-note").textContent.startsWith("3 reports, of 4 s, from ")`)
	b.click("#finding-list summary")
	for _, want := range []string{"Keep the connection to redis open between requests", "$redis->pconnect('10.20.30.99', 6379);", "about 32 connections, and no TIME_WAIT", "maxclients", "465/s", "4.3 ms"} {
		if got := b.text("#finding-list .body"); !strings.Contains(got, want) {
			t.Errorf("the advice lacks %q:\n%s", want, got)
		}
	}
	if links := eval[[]string](b, `[...document.querySelectorAll("#finding-list .sources a")].map((a) => a.href)`); !slices.Equal(links, []string{"https://github.com/phpredis/phpredis#pconnect-popen"}) {
		t.Errorf("sources are %q", links)
	}
	b.click("#finding-list summary")
	b.quiet()
}

// rowsOf asks the API for the flows in an order, and gives what the order goes by.
func rowsOf(t *testing.T, b *browser, sort string) (ids []string, keys []string) {
	t.Helper()
	var answer web.Flows
	if err := json.Unmarshal([]byte(eval[string](b, fmt.Sprintf(`fetch("api/v1/flows?limit=1000&sort=%s").then((r) => r.text())`, sort))), &answer); err != nil {
		t.Fatal(err)
	}
	for _, r := range answer.Flows {
		f := r.Flow
		ids = append(ids, r.ID)
		var process string
		if len(f.Processes) > 0 {
			process = f.Processes[0].Comm
		}
		keys = append(keys, map[string]string{
			"ports": fmt.Sprint(f.Ports != nil, f.Ports != nil && f.Ports.Used > 0, cmp.Or(f.Ports, &snapshot.Ports{}).Used), "time_wait": fmt.Sprint(f.States.TimeWait),
			"close_wait": fmt.Sprint(f.States.CloseWait), "established": fmt.Sprint(f.States.Established), "closes": fmt.Sprint(*f.CloseRate),
			"lifetime": fmt.Sprint(f.MeanLifetimeSeconds == nil), "service": f.Service, "process": process, "remote": f.Remote,
		}[sort])
	}
	return ids, keys
}

// The table has the flows by the API's names, and sorts them as the API does.
func pageTable(t *testing.T, _ *pageSite, b *browser) {
	shown := func() []string {
		return eval[[]string](b, `[...document.querySelectorAll("#flow-rows .flow")].map((e) => e.dataset.flow)`)
	}
	if n := len(shown()); n != 25 {
		t.Fatalf("%d rows at first, want 25", n)
	}
	for range 5 {
		b.click("#flow-more")
	}
	if b.seen("#flow-more") {
		t.Error("there are more than all flows")
	}
	ids, _ := rowsOf(t, b, "ports")
	if got := shown(); len(got) != 141 || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(ids))) {
		t.Fatalf("%d rows, not those of the API", len(got))
	}
	header := func(sort string) string {
		return fmt.Sprintf(`[data-sort="%s"]`, map[string]string{"remote": "flow"}[sort]+strings.TrimPrefix(sort, "remote"))
	}
	for _, sort := range []string{"time_wait", "close_wait", "established", "closes", "lifetime", "service", "process", "ports"} {
		ids, keys := rowsOf(t, b, sort)
		key := map[string]string{}
		for i, id := range ids {
			key[id] = keys[i]
		}
		b.click(header(sort))
		sorted := shown()
		for i, id := range sorted { // ties stand in any order
			if key[id] != keys[i] {
				t.Errorf("by %s: row %d has %s, the API %s", sort, i, key[id], keys[i])
				break
			}
		}
		up := slices.Contains([]string{"lifetime", "service", "process"}, sort)
		want := map[bool]string{true: "ascending", false: "descending"}
		if got := eval[[]string](b, `[...document.querySelectorAll("[aria-sort]")].map((e) => e.getAttribute("aria-sort") + " " + e.firstChild.dataset.sort)`); !slices.Equal(got, []string{want[up] + " " + sort}) {
			t.Errorf("by %s: aria-sort is %q", sort, got)
		}
		b.click(header(sort)) // the other way around
		if got := shown(); key[got[len(got)-1]] != keys[0] {
			t.Errorf("by %s, turned: the last has %s, want %s", sort, key[got[len(got)-1]], keys[0])
		}
		if got := eval[string](b, `document.querySelector("[aria-sort]").getAttribute("aria-sort")`); got != want[!up] {
			t.Errorf("by %s, turned: aria-sort is %s", sort, got)
		}
		b.click(header(sort))
	}

	filter := func(words string) {
		eval[bool](b, fmt.Sprintf(`(() => { const f = document.querySelector("#filter"); f.value = %q; f.dispatchEvent(new Event("input")); return true; })()`, words))
	}
	for _, c := range [][2]string{
		{"6379", "1 of 141 flows"},
		{"REDIS php", "1 of 141 flows"},
		{"10.9.6", "18 of 141 flows"},
		{"server https", "14 of 141 flows"},
		{"401 postgresql", "12 of 141 flows"},
		{"nothing like it", "0 of 141 flows"},
		{"", "141 flows; 12 more are not listed"},
	} {
		words, want := c[0], c[1]
		filter(words)
		if got := b.text("#flow-count"); got != want {
			t.Errorf("filtered by %q: %s, want %s", words, got, want)
		}
		if said := b.texts("#flow-said")[0]; words == "nothing like it" && said != "No flow matches." || words != "nothing like it" && said != want {
			t.Errorf("filtered by %q: a screen reader hears %q", words, said)
		}
	}
	eval[bool](b, `(() => { const s = document.querySelector("#side"); s.value = "server"; s.dispatchEvent(new Event("input")); return true; })()`)
	if got := b.text("#flow-count"); got != "14 of 141 flows" {
		t.Errorf("servers: %s", got)
	}
	eval[bool](b, `(() => { const s = document.querySelector("#side"); s.value = ""; s.dispatchEvent(new Event("input")); return true; })()`)

	// The bar of the tightest flow, and the line at half.
	bar := eval[map[string]float64](b, `(() => { const bar = document.querySelector(".bar"), box = bar.getBoundingClientRect(), fill = bar.firstChild.getBoundingClientRect();
		return {share: fill.width / box.width, line: parseFloat(getComputedStyle(bar, "::after").left) / box.width}; })()`)
	if f := incident(2).Namespaces[0].Flows[0].Ports; bar["share"] < float64(f.Used)/28227-0.01 || bar["share"] > float64(f.Used)/28227+0.01 || bar["line"] < 0.49 || bar["line"] > 0.51 {
		t.Errorf("the bar: %v", bar)
	}
	b.click(".row")
	b.eventually(`document.querySelectorAll(".detail figure svg").length === 2`)
	for _, want := range []string{"2,147 of 28,227", "465 a second", "4.3 ms", "php8.2-fpm.service", "2: 2210, 2211", "The process of 93 % of the sockets is known.", "from 26,000 to 26,080"} {
		if got := b.text(".detail"); !strings.Contains(got, want) {
			t.Errorf("the details lack %q:\n%s", want, got)
		}
	}
	b.quiet()
	b.click(".detail > button")
	b.eventually(`document.querySelector(".detail [role=status]")?.textContent.includes("there are no live sockets")`)
	b.said() // the refusal, which the browser notes
	b.click(".row")
}

// Everything can be reached by keys.
func pageKeys(t *testing.T, _ *pageSite, b *browser) {
	b.do(chromedp.Navigate(eval[string](b, `location.href`)))
	b.eventually(`document.querySelectorAll(".row").length > 0`)
	focus := func() string {
		return eval[string](b, `(() => { const e = document.activeElement; return e.id || e.className || e.dataset.sort || e.textContent; })()`)
	}
	b.press("\t")
	if got := focus(); got != "skip" || !b.seen(".skip") {
		t.Errorf("Tab first leads to %q", got)
	}
	b.press("\r")
	b.press("\t")
	if eval[bool](b, `document.activeElement.matches("#finding-list summary")`) == false {
		t.Errorf("after the skip link Tab leads to %q", focus())
	}
	b.press(" ")
	if !b.seen("#finding-list .body") {
		t.Error("a finding doesn't open by the space bar")
	}
	b.press(" ")
	b.press("/")
	if got := focus(); got != "filter" {
		t.Errorf("/ leads to %q", got)
	}
	b.press("redis/t") // types, and is no command here
	if got := eval[string](b, `document.querySelector("#filter").value`); got != "redis/t" {
		t.Errorf("typed %q", got)
	}
	b.press("\x1b")
	if got := b.text("#flow-count"); !strings.HasPrefix(got, "141 flows") {
		t.Errorf("after Esc: %q", got)
	}
	eval[bool](b, `(document.querySelector("[data-sort=time_wait]").focus(), true)`)
	b.press("\r")
	if got := eval[string](b, `document.querySelector("[aria-sort] button").dataset.sort`); got != "time_wait" || focus() != "time_wait" {
		t.Errorf("sorted by %q, focus on %q", got, focus())
	}
	eval[bool](b, `(document.querySelector(".row").focus(), true)`)
	b.press("\r")
	if !b.seen(".detail") || !eval[bool](b, `document.activeElement.getAttribute("aria-expanded") === "true" && document.getElementById(document.activeElement.getAttribute("aria-controls")).querySelector(".detail") !== null`) {
		t.Error("a flow doesn't open by Enter")
	}
	b.press("\r")
	eval[bool](b, `(document.activeElement.blur(), true)`)
	dark := func() bool {
		return eval[bool](b, `getComputedStyle(document.body).backgroundColor === "rgb(20, 23, 26)"`)
	}
	b.looks("light", 1280, 900)
	for i, want := range []bool{false, true, false} { // light, dark, the system's
		b.press("t")
		if dark() != want {
			t.Errorf("after %d times t: dark is %v", i+1, dark())
		}
	}
	b.press("t")
	b.press("t")
	b.do(chromedp.Navigate(eval[string](b, `location.href`)))
	b.eventually(`document.querySelector("#theme").textContent === "Theme: dark"`) // remembered
	b.press("t")
	b.quiet()
}

// A new report changes numbers, and neither the elements nor the focus, what is
// open or where the page stands.
func pageUpdatesInPlace(t *testing.T, s *pageSite, b *browser) {
	b.click("#finding-list summary")
	b.click(".row")
	b.eventually(`document.querySelectorAll(".detail figure svg").length === 2`)
	eval[bool](b, `(() => {
		document.querySelector("#flows").scrollIntoView();
		document.querySelector("[data-sort=ports]").focus({preventScroll: true});
		window.marks = [...document.querySelectorAll("#finding-list li, #finding-list details, .flow, .detail, [data-count], #cw-rows tr, #history-charts figure, #verdict-text")];
		window.shifts = 0;
		new PerformanceObserver((list) => { for (const e of list.getEntries()) window.shifts += e.value; }).observe({type: "layout-shift"});
		window.changed = new Set();
		new MutationObserver((all) => { for (const m of all) window.changed.add((m.target.nodeType === 3 ? m.target.parentNode : m.target).closest("section, header, [id]")?.id); })
			.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
		return true;
	})()`)
	place := eval[float64](b, `scrollY`)
	for n := 3; n < 13; n++ {
		s.publish(incident(n))
		b.shows(incident(n))
	}
	if got := b.counts()["time_wait"]; got != "27,380" {
		t.Errorf("the diagram shows %s TIME_WAITs, want 27,380", got)
	}
	for expression, want := range map[string]string{
		`marks.filter((e) => !e.isConnected).length`:           "0",
		`document.activeElement.dataset.sort`:                  "ports",
		`document.querySelector("#finding-list details").open`: "true",
		`document.querySelectorAll(".detail").length`:          "1",
		`scrollY`:       fmt.Sprint(place),
		`shifts < 0.01`: "true",
		`changed.has("verdict-text") || changed.has("host")`:                        "false", // they say the same, and are not said again
		`changed.has("close-waits") || changed.has("cw-rows")`:                      "false",
		`changed.has("closes") || changed.has("closes-plot")`:                       "true",
		`document.querySelector("[data-flow] .share").textContent`:                  "94 %",
		`document.querySelector("#close-waits .c-local:not(th)").tagName`:           "TD",
		`document.querySelector(".detail figure:last-child").textContent`:           "TIME_WAIT, in the reports kept from 26,000 to 26,480",
		`document.querySelectorAll("#history-charts figure strong")[1].textContent`: "27,380",
	} {
		b.eventually(`String(%s) === %q`, expression, want)
	}
	b.click("#finding-list summary")
	b.click(".row")
	b.quiet()
}

// axe-core finds no barrier: light and dark, desktop and phone, closed and open.
func pageHasNoBarriers(_ *testing.T, s *pageSite, b *browser) {
	few := incident(15) // of each kind of element, since axe looks at every one
	few.Namespaces[0].Flows = append(few.Namespaces[0].Flows[:2], few.Namespaces[0].Flows[11])
	few.Namespaces[0].CloseWaits = few.Namespaces[0].CloseWaits[:3]
	s.publish(few)
	b.shows(few)
	open := func(on bool) {
		eval[bool](b, fmt.Sprintf(`(() => {
			for (const d of document.querySelectorAll("details")) d.open = %v;
			const row = document.querySelector(".row");
			if ((row.getAttribute("aria-expanded") === "true") !== %[1]v) row.click();
			return true;
		})()`, on))
	}
	for _, scheme := range []string{"light", "dark"} {
		for _, size := range [][2]int64{{1280, 900}, {390, 844}} {
			what := fmt.Sprintf("%s, %d wide", scheme, size[0])
			b.looks(scheme, size[0], size[1])
			open(false)
			b.accessible(what, "html")
			b.shoot(what)
			open(true)
			b.eventually(`document.querySelectorAll(".detail figure svg").length === 2`)
			b.accessible(what+", all open", "html")
			b.shoot(what + ", all open")
		}
	}
	for _, width := range []int64{320, 640, 641, 820, 901} {
		b.looks("light", width, 900)
		b.fits(fmt.Sprintf("%d wide", width))
	}
	open(false)
	b.quiet()
	home := eval[string](b, `location.href`)
	for _, path := range []string{"explain", "explain/time-wait", "explain/no-such-thing"} {
		b.do(chromedp.Navigate(home + path))
		b.looks("dark", 390, 844)
		b.accessible(path+", dark", "html")
		b.looks("light", 1280, 900)
		b.accessible(path+", light", "html")
	}
	b.said() // that one of them isn't there
	b.do(chromedp.Navigate(home))
	b.looks("light", 1280, 900)
	b.eventually(`document.querySelectorAll(".row").length > 0`)
}

// With several namespaces one can be looked at alone.
func pageNamespaces(t *testing.T, s *pageSite, b *browser) {
	two := func(n int) *snapshot.Report {
		r := incident(n)
		pod := *incident(n).Namespaces[0]
		pod.Name, pod.Inode, pod.Flows, pod.CloseWaits = "shop/cart", 77, pod.Flows[1:4], nil
		pod.States = snapshot.States{TimeWait: 5, Established: 8}
		pod.TimeWait = snapshot.TimeWait{BucketsUsed: 5, BucketsLimit: new(10)}
		r.Namespaces = append(r.Namespaces, &pod)
		return r
	}
	s.publish(two(20))
	b.shows(two(20))
	sum := two(20).Namespaces[0].States.TimeWait + 5
	if got := strings.ReplaceAll(b.counts()["time_wait"], ",", ""); got != fmt.Sprint(sum) {
		t.Errorf("all: %s TIME_WAIT, want %d", got, sum)
	}
	if got := b.text("#figures div:nth-child(2) .number"); got != "≥466" { // the other's rate isn't known
		t.Errorf("all: %s closes a second", got)
	}
	pick := func(key string) {
		eval[bool](b, fmt.Sprintf(`(() => { const s = document.querySelector("#namespace"); s.value = %q; s.dispatchEvent(new Event("input")); return true; })()`, key))
	}
	pick("77/0")
	for selector, want := range map[string]string{
		"[data-count=time_wait]": "5", "[data-count=established]": "8", "#flow-count": "3 flows; 12 more are not listed", "#figures .more": "50 % of 10 buckets",
		"#figures div:nth-child(2) .number .hidden": "not known", "#cw-none": "None.",
	} {
		if got := b.text(selector); got != want {
			t.Errorf("one: %s is %q, want %q", selector, got, want)
		}
	}
	b.eventually(`document.querySelectorAll("#history-charts figure strong")[1].textContent === "5"`)
	s.publish(two(21)) // it stays chosen
	b.shows(two(21))
	if got := b.counts()["time_wait"]; got != "5" {
		t.Errorf("one, later: %s", got)
	}
	s.publish(incident(22)) // it has gone: all are shown
	b.shows(incident(22))
	if b.seen("#pick") || b.counts()["time_wait"] == "5" {
		t.Error("a namespace that has gone is still chosen")
	}
	b.quiet()
}

// hostile is what a name can be: markup, and characters that turn text around.
const hostile = `<img src=x onerror="document.title='owned'">` + "\u202egnp.exe\x1b[2J"

// spoil makes every text of a value hostile, but those that the model fixes.
func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			spoil(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			spoil(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Name != "Schema" {
				spoil(v.Field(i))
			}
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() && v.CanSet() {
			v.SetString(hostile)
		}
	}
}

// Nothing in a report can become markup, or hide: every text of it is hostile.
func pageTakesNothingForMarkup(t *testing.T, s *pageSite, b *browser) {
	evil := func(n int) *snapshot.Report {
		r := incident(n)
		r.Namespaces = append(r.Namespaces, incident(n).Namespaces...)
		for i := range r.Findings {
			r.Findings[i].Recommendations = incident(n).Findings[0].Recommendations
		}
		spoil(reflect.ValueOf(r))
		for i, n := range r.Namespaces {
			n.Inode = uint64(i)
			for j := range n.Flows {
				n.Flows[j].Remote = fmt.Sprint(j, hostile) // else all would be one flow
			}
		}
		r.Findings[0].BecauseOf = ""
		return r
	}
	s.publish(evil(30))
	s.publish(evil(31))
	b.shows(evil(31))
	eval[bool](b, `(() => { for (const d of document.querySelectorAll("details")) d.open = true; for (const r of document.querySelectorAll(".row")) r.click(); return true; })()`)
	s.publish(evil(32))
	b.shows(evil(32))
	b.eventually(`document.querySelectorAll(".detail").length === 25 && document.querySelectorAll(".detail figure svg").length > 20`)
	visible := strings.NewReplacer("\u202e", `\u202e`, "\x1b", `\x1b`).Replace(hostile)
	for _, selector := range []string{"#host", "#kernel", "#lede", "#finding-list .summary", "#finding-list .recommendation h3", "#finding-list code", "#gap-list li", "td.c-service", "td.c-process", ".ends", ".detail tbody th", "#cw-rows td", "#namespace option:last-child", ".evidence th"} {
		if got := strings.Join(b.texts(selector), "\n"); !strings.Contains(got, visible) {
			t.Errorf("%s doesn't show the name as it is: %.200q", selector, got)
		}
	}
	for expression, want := range map[string]string{
		`document.querySelectorAll("main img, script:not([src]), iframe, [onerror]").length`:                                                                                                "0",
		`document.title.includes("owned") && !document.title.includes("<img")`:                                                                                                              "false",
		`[...document.links].every((a) => /^https?:$/.test(a.protocol) && (a.origin === location.origin || a.closest(".sources")))`:                                                         "true",
		`[...document.querySelectorAll("svg a")].every((a) => /^explain\/[\w-]+$/.test(a.getAttribute("href")))`:                                                                            "true",
		`/[\u202a-\u202e\u2066-\u2069\u001b]/.test(document.body.textContent + document.title + [...document.querySelectorAll("[title], [aria-label]")].map((e) => e.title + e.ariaLabel))`: "false",
		`(document.querySelectorAll("#finding-list code")[0].closest("pre").click(), document.querySelectorAll("b").length)`:                                                                "0",
	} {
		if got := eval[string](b, `String(`+expression+`)`); got != want {
			t.Errorf("%s is %s, want %s", expression, got, want)
		}
	}
	// The ids are the API's for whatever is in a name.
	ids, _ := rowsOf(t, b, "time_wait")
	for _, id := range eval[[]string](b, `[...document.querySelectorAll(".flow")].map((e) => e.dataset.flow)`) {
		if !slices.Contains(ids, id) {
			t.Errorf("the API has no flow %s", id)
		}
	}
	b.quiet()
	// The policy would stop what the page doesn't do.
	eval[bool](b, `(() => {
		try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch { /* trusted types */ }
		const s = document.createElement("style"); s.textContent = "body{color:red}"; document.head.append(s);
		return true;
	})()`)
	b.eventually(`document.querySelectorAll("b").length === 0 && getComputedStyle(document.body).color !== "rgb(255, 0, 0)"`)
	if said := strings.Join(b.said(), "\n"); !strings.Contains(said, "Content Security Policy") {
		t.Errorf("the policy stopped nothing: %s", said)
	}
	b.do(chromedp.Navigate(eval[string](b, `location.href`)))
	b.said()
}

// The page says when its data are old, when nobody answers and why, and recovers.
func pageSaysWhatIsOld(t *testing.T, s *pageSite, b *browser) {
	fast := func(n int) *snapshot.Report {
		r := incident(n)
		r.IntervalSeconds = 0.2
		return r
	}
	s.publish(fast(40))
	b.shows(fast(40))
	if got := eval[string](b, `document.body.dataset.link`); got != "live" || b.seen("#banner") {
		t.Errorf("a new report: %s, %s", got, b.text("#banner"))
	}
	b.eventually(`document.body.dataset.link === "stale" && document.querySelector("#banner").checkVisibility()`)
	if got := b.text("#banner"); !strings.HasPrefix(got, "Old data: twwatch answers, but its last look was at ") {
		t.Errorf("old data: %s", got)
	}
	b.accessible("old data", "#banner")
	s.publish(incident(41))
	b.eventually(`document.body.dataset.link === "live" && !document.querySelector("#banner").checkVisibility()`)

	s.stop()
	b.eventually(`document.body.dataset.link === "gone" && document.querySelector("#banner").checkVisibility()`)
	if got := b.text("#banner"); !strings.HasPrefix(got, "No connection to twwatch since ") || !strings.Contains(got, "This twwatch is stopping.") || b.counts()["time_wait"] != "28,540" {
		t.Errorf("stopped: %s, %v", got, b.counts())
	}
	if got := eval[string](b, `document.querySelector("#banner").getAttribute("role")`); got != "alert" {
		t.Errorf("the banner's role is %q", got)
	}
	b.accessible("stopped", "#banner")
	b.shoot("stopped")
	s.serve()
	s.publish(incident(42))
	b.shows(incident(42))
	b.eventually(`document.body.dataset.link === "live" && !document.querySelector("#banner").checkVisibility()`)
	b.said() // that nobody answered
}
