package truth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/lab"
)

const (
	// pageAddress is below every range that ephemeral ports are taken from here.
	pageAddress = "127.0.0.1:996"
	// hostileProgram is a file's name, and hostileComm what the kernel keeps of it.
	hostileProgram = "<img src=x onerror=document.title='owned'>"
	hostileComm    = "<img src=x oner"
)

// A serving is twwatch serve in a namespace.
type serving struct {
	t    *testing.T
	ns   *lab.Namespace
	args []string
	cmd  *exec.Cmd
	log  output
}

// An output may be read while it is written.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// serve starts a daemon, which is killed when the test ends.
func serve(t *testing.T, ns *lab.Namespace, args ...string) *serving {
	t.Helper()
	d := &serving{t: t, ns: ns, args: append([]string{program(t), "serve", "--web.listen-address=" + pageAddress}, args...)}
	d.start()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.log.String())
		}
	})
	return d
}

func (d *serving) start() {
	d.t.Helper()
	d.cmd = exec.Command(d.args[0], d.args[1:]...)
	d.cmd.Stderr = &d.log
	if err := d.ns.Do(d.cmd.Start); err != nil {
		d.t.Fatal(err)
	}
}

// kill ends it as a crash does.
func (d *serving) kill() {
	_ = d.cmd.Process.Kill() // it may have ended
	_ = d.cmd.Wait()         // which tells of the signal
}

// churner is a real process with a hostile name that opens short connections, one
// every 10 ms, and keeps one.
func churner(t *testing.T, ns *lab.Namespace, port uint16) {
	t.Helper()
	bash, err := os.ReadFile(lab.Tool(t, "bash"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), hostileProgram)
	if err := os.WriteFile(file, bash, 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`exec 4<>/dev/tcp/127.0.0.7/%d; while :; do exec 3<>/dev/tcp/127.0.0.7/%[1]d; exec 3>&-; read -r -t 0.01 -u 4; done`, port)
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, file, "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = ns.Do(cmd.Start)
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // which tells of the signal
	})
	if err != nil {
		t.Fatal(err)
	}
}

// storm makes sockets in all the states that last, and short connections to
// redis's port until the ports run out.
func storm(t *testing.T, b *bench) {
	t.Helper()
	b.serve("127.0.0.1:6379")
	b.serve("127.0.0.7:907")
	manual := must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:908"), lab.ListenOptions{Mode: lab.Manual}))
	for range 3 { // CLOSE_WAIT here, FIN_WAIT2 there
		p := must[*lab.Pair](t)(b.ns.Pair(manual, lab.ConnOptions{}))
		if err := p.Client.Shutdown(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.ns.AddSink("sink0", netip.MustParsePrefix("10.66.0.1/24")); err != nil {
		t.Fatal(err)
	}
	b.open(2, "10.66.0.9:443", lab.ConnOptions{NoWait: true}) // SYN_SENT
	must[*lab.Server](t)(b.ns.Listen(addrPort("127.0.0.1:909"), lab.ListenOptions{Mode: lab.Manual, DeferAccept: true}))
	passive := must[int64](t)(b.ns.Counter("Tcp", "PassiveOpens"))
	half := b.open(5, "127.0.0.1:909", lab.ConnOptions{}) // SYN_RECV, for a few seconds
	if n := must[int64](t)(b.ns.Counter("Tcp", "PassiveOpens")); n != passive {
		t.Errorf("PassiveOpens grew by %d with half-open handshakes: the diagram says that it counts complete ones", n-passive)
	}
	if err := half[0].Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		n, err := b.ns.Counter("Tcp", "PassiveOpens")
		if err == nil && n != passive+1 {
			err = fmt.Errorf("PassiveOpens grew by %d with one complete handshake", n-passive)
		}
		return err
	})

	ctx, stop := context.WithCancel(context.Background())
	wait := b.ns.Go(func() error {
		_, err := b.ns.Run(ctx, lab.Storm{Remotes: remotes("127.0.0.1:6379"), Rate: 60, Count: 100_000, Hold: time.Millisecond, Orphan: true})
		return err
	})
	t.Cleanup(func() {
		stop()
		_ = wait() // that the context ended it
	})
	churner(t, b.ns, 907)
}

// A moment is a report, and what the page shows of it.
type moment struct {
	Report        *snapshot.Report
	Counts, Rates map[string]string // by state, in the diagram
	Rows          []string          // of the table
}

// now waits until the page and /api/v1/report are of the same pass.
func now(t *testing.T, b *browser) moment {
	t.Helper()
	var found struct {
		Report string
		moment
	}
	lab.Eventually(t, 30*time.Second, func() error {
		answer := eval[string](b, `fetch("api/v1/report").then((r) => r.text()).then((report) => {
			if (JSON.parse(report).time !== document.querySelector("#age").title) return "";
			const numbers = (name) => Object.fromEntries([...document.querySelectorAll("[data-" + name + "]")].map((e) => [e.dataset[name], e.textContent]));
			return JSON.stringify({Report: report, Counts: numbers("count"), Rates: numbers("rate"), Rows: [...document.querySelectorAll("#flow-rows .flow")].map((e) => e.innerText)});
		})`)
		if answer == "" {
			return errors.New("the page shows another report")
		}
		return json.Unmarshal([]byte(answer), &found)
	})
	found.moment.Report = must[*snapshot.Report](t)(snapshot.Decode([]byte(found.Report)))
	return found.moment
}

// TestPageOverLiveStorm has the real daemon watch a real storm, and a real browser
// show it.
func TestPageOverLiveStorm(t *testing.T) {
	lab.Require(t, "netns")
	bench := newBench(t, "net.ipv4.ip_local_port_range", "32768 33367")
	storm(t, bench)
	d := serve(t, bench.ns, "--interval=1s", "--cpu-budget=1")
	lab.Eventually(t, 30*time.Second, func() error {
		_, err := get(bench.ns, "http://"+pageAddress+"/-/ready")
		return err
	})
	b := open(t, bench.ns, "http://"+pageAddress+"/")
	b.eventually(`document.querySelector("#verdict-text").dataset.verdict === "critical" && document.querySelectorAll("#finding-list .finding").length > 0`)
	liveDiagram(t, b)
	liveFindings(t, b)
	liveTable(t, b)
	liveName(t, b)
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 390} {
			what := fmt.Sprintf("live, %s, %d wide", scheme, width)
			b.looks(scheme, width, 900)
			b.accessible(what, "html")
			b.shoot(what)
		}
	}
	b.looks("light", 1280, 900)
	b.quiet()

	// It updates by itself, and says when nobody answers.
	before := eval[string](b, `document.querySelector("#age").title`)
	b.eventually(`document.querySelector("#age").title > %q`, before)
	d.kill()
	b.eventually(`document.body.dataset.link === "gone" && document.querySelector("#banner").checkVisibility()`)
	if got := b.text("#banner"); !strings.HasPrefix(got, "No connection to twwatch since ") || !strings.Contains(got, "trying again") {
		t.Errorf("the daemon is dead: %q", got)
	}
	before = eval[string](b, `document.querySelector("#age").title`)
	d.start()
	b.eventually(`document.querySelector("#age").title > %q && document.body.dataset.link === "live" && !document.querySelector("#banner").checkVisibility()`, before)
}

// The diagram's numbers are the report's, of the same pass, again and again.
func liveDiagram(t *testing.T, b *browser) {
	t.Helper()
	for range 3 {
		m := now(t, b)
		n := m.Report.Namespaces[0]
		shown := map[string]uint32{}
		for state, text := range m.Counts {
			v, err := strconv.ParseUint(strings.ReplaceAll(text, ",", ""), 10, 32)
			if err != nil {
				t.Errorf("%s: %q is no number", state, text)
			}
			if v > 0 {
				shown[state] = uint32(v)
			}
		}
		want := named(&n.States)
		delete(want, "close")
		if fmt.Sprint(shown) != fmt.Sprint(want) {
			t.Errorf("the diagram shows %v, the report has %v", shown, want)
		}
		if n.States.CloseWait < 3 || n.States.SynSent < 2 || n.States.TimeWait < 100 {
			t.Errorf("the report has %v", want)
		}
		wantRate := fmt.Sprintf("%.0f/s", *n.TimeWait.CloseRate)
		if got := m.Rates["time_wait"]; got != wantRate || *n.TimeWait.CloseRate < 10 {
			t.Errorf("TIME_WAIT's rate is %q, the report's %q", got, wantRate)
		}
		b.eventually(`document.querySelector("#age").title !== %q`, m.Report.Time.Format(time.RFC3339Nano))
	}
}

// The verdict is the report's, and a finding opens its advice.
func liveFindings(t *testing.T, b *browser) {
	t.Helper()
	r := now(t, b).Report
	if got := b.text("#verdict-text"); got != "Critical" || r.Verdict != snapshot.Critical {
		t.Errorf("the page says %q, the report %q", got, r.Verdict)
	}
	i := slices.IndexFunc(r.Findings, func(f snapshot.Finding) bool { return f.ID == "short-connections-client" && len(f.Recommendations) > 0 })
	if i < 0 {
		t.Fatalf("no finding of short connections: %+v", r.Findings)
	}
	f := r.Findings[i]
	b.click(fmt.Sprintf(`[data-id="%s"] summary`, f.ID))
	body := oneLine(b.text(fmt.Sprintf(`[data-id="%s"] .body`, f.ID)))
	for _, advice := range f.Recommendations {
		for _, text := range []string{advice.Title, advice.Do, advice.Snippet} {
			if !strings.Contains(body, oneLine(text)) {
				t.Errorf("the page's advice lacks %q:\n%s", text, body)
			}
		}
	}
}

// The table sorts and filters as the report's numbers are.
func liveTable(t *testing.T, b *browser) {
	t.Helper()
	b.click(`[data-sort="closes"]`)
	m := now(t, b)
	rate := func(f *snapshot.Flow) float64 {
		if f.CloseRate == nil {
			return -1
		}
		return *f.CloseRate
	}
	var best []string // several may be equal
	most := 0.0
	for i := range m.Report.Namespaces[0].Flows {
		f := &m.Report.Namespaces[0].Flows[i]
		if rate(f) > most {
			best, most = nil, rate(f)
		}
		if rate(f) == most {
			best = append(best, fmt.Sprintf("%s → %s:%d", f.Local, f.Remote, f.Port))
		}
	}
	if row := oneLine(m.Rows[0]); !slices.ContainsFunc(best, func(name string) bool { return strings.HasPrefix(row, name) }) {
		t.Errorf("first by closes is %q, the report's are %q", row, best)
	}
	eval[bool](b, `(() => { const f = document.querySelector("#filter"); f.value = "redis"; f.dispatchEvent(new Event("input")); return true; })()`)
	rows := now(t, b).Rows
	for _, row := range rows {
		if !strings.Contains(row, "redis") {
			t.Errorf("filtered by redis: %q", row)
		}
	}
	if len(rows) == 0 || len(rows) == len(m.Rows) {
		t.Errorf("filtered by redis: %d of %d flows", len(rows), len(m.Rows))
	}
	b.click("#filter")
	b.press("\x1b")
}

// A process's hostile name is text, in the table and in the list of sockets.
func liveName(t *testing.T, b *browser) {
	t.Helper()
	b.eventually(`[...document.querySelectorAll("td.c-process")].some((e) => e.textContent === %q)`, hostileComm)
	eval[bool](b, fmt.Sprintf(`(() => { const row = [...document.querySelectorAll(".flow")].find((e) => e.querySelector(".c-process").textContent === %q); row.querySelector(".row").click(); return true; })()`, hostileComm))
	b.eventually(`document.querySelector(".detail tbody th")?.textContent === %q && document.querySelector(".detail tbody th").title.endsWith(%q)`, hostileComm, "/"+hostileProgram)
	b.click(".detail > button") // real sockets
	b.eventually(`document.querySelectorAll(".tuples tbody tr").length > 10`)
	if n := eval[int](b, `[...document.querySelectorAll(".tuples tbody tr")].filter((r) => r.cells[1].textContent !== "127.0.0.7:907").length`); n > 0 {
		t.Errorf("%d sockets of the other end are listed too", n)
	}
	if row, status := oneLine(strings.Join(b.texts(".tuples tbody tr"), " ")), b.text(".detail [role=status]"); !strings.Contains(row, "127.0.0.7:907") || !strings.Contains(row, "TIME_WAIT") || !strings.Contains(status, "sockets") {
		t.Errorf("the list says %q: %.200q", status, row)
	}
	b.shoot("live, a flow open")
	eval[bool](b, `(document.querySelector('[aria-expanded="true"]').click(), true)`)
	if got := eval[string](b, `document.title + document.querySelectorAll("main img").length`); strings.Contains(got, "owned") || !strings.HasSuffix(got, "0") {
		t.Errorf("the name became markup: %s", got)
	}
	// In the API it is text too.
	var answer struct {
		Sockets []snapshot.Socket `json:"sockets"`
	}
	if err := json.Unmarshal([]byte(eval[string](b, `fetch("api/v1/sockets?process=" + encodeURIComponent("`+hostileComm+`")).then((r) => r.text())`)), &answer); err != nil || len(answer.Sockets) == 0 {
		t.Errorf("the API lists %d of its sockets: %v", len(answer.Sockets), err)
	}
}
