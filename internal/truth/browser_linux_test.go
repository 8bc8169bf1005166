package truth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/twwatch/twwatch/internal/lab"
)

// A browser is a real Chromium with one page, and what that page's console says.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	console []string
}

// open starts a Chromium of its own, in the namespace if there is one, and opens
// a page.
func open(t *testing.T, ns *lab.Namespace, url string) *browser {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(lab.Tool(t, "chromium")), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 900))
	if ns != nil {
		nsenter := lab.Tool(t, "nsenter")
		options = append(options, chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			cmd.Args = append([]string{nsenter, "--net=" + ns.Path(), cmd.Path}, cmd.Args[1:]...)
			cmd.Path = nsenter
		}))
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	ctx, done := context.WithTimeout(ctx, 8*time.Minute)
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil { // starts it
		t.Fatal(err)
	}
	messages := chromedp.Console(ctx)
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		for m, err := range messages {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.console = append(b.console, fmt.Sprintf("%s %s: %s", m.Type, m.Source, m.Text))
			b.mu.Unlock()
		}
	}()
	t.Cleanup(func() { done(); cancel(); stop(); <-listened })
	b.do(chromedp.Navigate(url))
	return b
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// quiet fails if the console has said anything since the last call.
func (b *browser) quiet() {
	b.t.Helper()
	if said := b.said(); len(said) > 0 {
		b.t.Errorf("the console says:\n%s", strings.Join(said, "\n"))
	}
}

// said returns what the console said since the last call.
func (b *browser) said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	said := b.console
	b.console = nil
	return said
}

// eval is the value of an expression in the page.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// text is an element's text as it is seen, "" if it isn't.
func (b *browser) text(selector string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf(`(() => { const e = document.querySelector(%q); return e?.checkVisibility() ? e.innerText ?? e.textContent : ""; })()`, selector))
}

// texts are the texts of all elements.
func (b *browser) texts(selector string) []string {
	b.t.Helper()
	return eval[[]string](b, fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.textContent)`, selector))
}

// seen tells whether an element is there and shown.
func (b *browser) seen(selector string) bool {
	b.t.Helper()
	return eval[bool](b, fmt.Sprintf(`document.querySelector(%q)?.checkVisibility() ?? false`, selector))
}

// eventually waits until an expression is true in the page.
func (b *browser) eventually(format string, args ...any) {
	b.t.Helper()
	expression := fmt.Sprintf(format, args...)
	lab.Eventually(b.t, time.Minute, func() error {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && !ok {
			err = errors.New("not true: " + expression)
		}
		return err
	})
}

func (b *browser) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// press types keys into whatever has the focus. A key goes down with its
// character, as a keyboard's does, so that the page can stop it.
func (b *browser) press(keys string) {
	b.t.Helper()
	b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		for _, r := range keys {
			events := kb.Encode(r)
			if len(events) == 3 {
				events[0].Text = events[1].Text
				events = slices.Delete(events, 1, 2)
			}
			for _, e := range events {
				if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, *e); err != nil {
					return chromedp.Void{}, err
				}
			}
		}
		return chromedp.Void{}, nil
	})
}

// looks has the browser prefer a light or a dark page, and sets its size.
func (b *browser) looks(scheme string, width, height int64) {
	b.t.Helper()
	b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
		})
		return chromedp.Void{}, err
	}, chromedp.EmulateViewport(width, height))
}

// shoot keeps a picture of what is seen where TWWATCH_SHOTS names a directory:
// to look at, not to compare.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("TWWATCH_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// accessible fails for each barrier that axe-core finds in an element as it is:
// contrast, landmarks, names, roles, order; and where the page doesn't fit.
func (b *browser) accessible(what, selector string) {
	b.t.Helper()
	if eval[bool](b, `typeof axe === "undefined"`) {
		b.do(func(ctx context.Context, _ *chromedp.Target) (chromedp.Void, error) {
			_, err := chromedp.Run(ctx, chromedp.Evaluate[string](axe(b.t)+`; "loaded"`))
			return chromedp.Void{}, err
		})
	}
	found := eval[struct {
		Violations []string
		Passes     int
	}](b, fmt.Sprintf(`axe.run(%q, {resultTypes: ["violations"]}).then((r) => ({passes: r.passes.length, violations: r.violations.map((v) => v.id + ": " + v.help + ": " +
		v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + " " + (n.any[0]?.message ?? "")).join(" | "))}))`, selector))
	for _, v := range found.Violations {
		b.t.Errorf("%s: %s", what, v)
	}
	if least := map[bool]int{true: 30, false: 2}[selector == "html"]; found.Passes < least {
		b.t.Errorf("%s: axe has looked at %d things only", what, found.Passes)
	}
	b.fits(what)
}

// fits fails where the page is wider than the screen.
func (b *browser) fits(what string) {
	b.t.Helper()
	if wide := eval[int](b, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
		b.t.Errorf("%s: the page is %d pixels too wide: %q", what, wide, eval[[]string](b, `[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > innerWidth && !e.parentNode.closest(".scroll, pre")).map((e) => e.outerHTML.slice(0, 80)).slice(0, 3)`))
	}
}

// axe is the source of axe-core, which the set-up of the tests installs.
func axe(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("TOOLS")
	if dir == "" {
		dir = "../../.tools"
	}
	source, err := os.ReadFile(filepath.Join(dir, "axe", "axe.min.js"))
	if err != nil {
		lab.Lacks(t, "axe", err)
	}
	return string(source)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
