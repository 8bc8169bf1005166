package web

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twwatch/twwatch/internal/advice"
)

func wantsHTML(r *http.Request) { r.Header.Set("Accept", "text/html,*/*;q=0.8") }

// Everything that is listed is explained, as JSON, as text and as a page, and
// every link of the list and of the pages leads somewhere.
func TestEverythingIsExplained(t *testing.T) {
	h, _ := publish(t, fullReport(t))
	site := Handler(config(h))
	listed := pluck(t, get(t, site, "/api/v1/explain"), "ids", "kind", "id")
	var want []string
	for _, id := range library().IDs() {
		want = append(want, id.Kind+" "+id.ID)
	}
	if diff := cmp.Diff(want, listed); diff != "" || len(listed) < 50 {
		t.Fatalf("%d listed (-want +got):\n%s", len(listed), diff)
	}
	index := body(t, ask(site, loopback, "GET", "/explain"))
	links := map[string]string{} // path, where it was seen
	collect := func(page, text string) {
		for _, m := range regexp.MustCompile(`href="(?:\.\./)?(explain/[^"]+)"`).FindAllStringSubmatch(text, -1) {
			links["/"+m[1]] = page
		}
	}
	collect("/explain", index)
	if len(links) != len(listed) {
		t.Errorf("%d links in the list of %d", len(links), len(listed))
	}
	for link := range links {
		page := ask(site, loopback, "GET", link)
		text := body(t, page)
		collect(link, text)
		if page.StatusCode != 200 || page.Header.Get("Content-Type") != asHTML || page.Header.Get("Content-Security-Policy") != pagePolicy {
			t.Errorf("%s: %d %v", link, page.StatusCode, page.Header)
		}
		id := strings.TrimPrefix(link, "/explain/")
		v := get(t, site, "/api/v1/explain/"+id)
		title := pluck(t, v, "texts", "title")[0]
		plain := ask(site, loopback, "GET", "/api/v1/explain/"+id+"?format=text")
		if b := body(t, plain); plain.Header.Get("Content-Type") != asPlain || !strings.Contains(strings.Join(strings.Fields(b), " "), title) {
			t.Errorf("%s as text: %d %.200s", id, plain.StatusCode, b)
		}
		if strings.Count(text, "<h1>") != 1 {
			t.Errorf("%s: not one headline", link)
		}
	}
	for link, page := range links {
		if r := ask(site, loopback, "GET", link); r.StatusCode != 200 {
			t.Errorf("%s links to %s: %d", page, link, r.StatusCode)
		}
	}
}

// An explanation counts on this host what it speaks of.
func TestExplainedNow(t *testing.T) {
	h, _ := publish(t, fullReport(t))
	site := Handler(config(h))
	want := "27,930"
	if b := body(t, ask(site, loopback, "GET", "/explain/time-wait")); !strings.Contains(b, "<dd>"+want) {
		t.Errorf("the page doesn't count %s TIME_WAITs", want)
	}
	texts := at(t, get(t, site, "/api/v1/explain/time-wait"), "texts").([]any)
	now := pluck(t, texts[0], "now", "value")
	if !slices.ContainsFunc(now, func(v string) bool { return strings.HasPrefix(v, want) }) {
		t.Errorf("now is %v", now)
	}
}

func TestExplainRefuses(t *testing.T) {
	h, _ := start(t, 1)
	cfg := config(h)
	site := Handler(cfg)
	for id, c := range map[string]struct {
		status int
		text   string
	}{
		"time-wiat":               {404, "did you mean time-wait"},
		"xyzzy":                   {404, "/api/v1/explain lists everything"},
		"finding:time-wait":       {404, "nothing is called"},
		strings.Repeat("a", 129):  {400, "is no id"},
		"a%20b":                   {400, "is no id"},
		"%1b%5b2J":                {400, `\x1b[2J`},
		"%e2%80%ae":               {400, `\u202e`},
		"%3Cimg%20src=x%3E":       {400, "is no id"},
		"%3Cscript%3Ealert(1)%3C": {404, "nothing is called"},
	} {
		wantError(t, ask(site, loopback, "GET", "/api/v1/explain/"+id), c.status, c.text)
		wantError(t, ask(site, loopback, "GET", "/explain/"+id), c.status, "")
		page := ask(site, loopback, "GET", "/explain/"+id, wantsHTML)
		b := body(t, page)
		if page.StatusCode != c.status || page.Header.Get("Content-Type") != asHTML || strings.Contains(b, "<img src=x") || strings.Contains(b, "<script>alert") || strings.ContainsAny(b, "\x1b\u202e") {
			t.Errorf("the page of %q: %d %s", id, page.StatusCode, b)
		}
		head := ask(site, loopback, "HEAD", "/explain/"+id, wantsHTML)
		if head.StatusCode != c.status || body(t, head) != "" {
			t.Errorf("HEAD of %q: %d", id, head.StatusCode)
		}
	}
	wantError(t, ask(site, loopback, "GET", "/api/v1/explain/time-wait?format=xml"), 400, "json, text")

	cfg.Library = nil
	site = Handler(cfg)
	for _, path := range []string{"/api/v1/explain", "/api/v1/explain/time-wait", "/explain", "/explain/time-wait"} {
		wantError(t, ask(site, loopback, "GET", path), 404, "without its library")
	}
}

func TestPathOf(t *testing.T) {
	ids := []advice.ID{{ID: "redis", Kind: advice.KindService}, {ID: "redis", Kind: advice.KindRuntime}, {ID: "a/b", Kind: advice.KindTopic}}
	for i, want := range []string{"service:redis", "runtime:redis", "a%2Fb"} {
		if got := pathOf(ids, ids[i]); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
