package web

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
)

// The page is small: all its files together, unpacked.
func TestPageIsSmall(t *testing.T) {
	const most = 200_000
	total, packed := 0, 0
	for name, f := range newPages().files {
		total += len(f.body)
		packed += len(f.gz)
		if f.kind == "" {
			t.Errorf("%s has no Content-Type", name)
		}
	}
	t.Logf("%d bytes, %d packed", total, packed)
	if total > most {
		t.Errorf("the page has %d bytes, want at most %d", total, most)
	}
}

// Each file is served as what it is, and what a browser has is not sent again.
func TestPageFiles(t *testing.T) {
	h, _ := start(t, 0) // before the first report too
	site := Handler(config(h))
	for name, f := range newPages().files {
		target := "/assets/" + name
		if name == "index.html" {
			wantError(t, ask(site, loopback, "GET", target), 404, "no file of that name")
			target = "/"
		}
		r := ask(site, loopback, "GET", target)
		if b := body(t, r); r.StatusCode != 200 || b != string(f.body) || r.Header.Get("Content-Type") != f.kind {
			t.Errorf("%s: %d %v", target, r.StatusCode, r.Header)
		}
		if got := r.Header.Get("Content-Security-Policy"); got != pagePolicy {
			t.Errorf("%s: the policy is %s", target, got)
		}
		if r.Header.Get("Cache-Control") != "no-cache" || r.Header.Get("Cross-Origin-Opener-Policy") != "same-origin" {
			t.Errorf("%s: headers %v", target, r.Header)
		}
		if r := ask(site, loopback, "GET", target, fresh(r.Header.Get("ETag"))); r.StatusCode != 304 || body(t, r) != "" {
			t.Errorf("%s again: %d", target, r.StatusCode)
		}
	}
	for _, name := range []string{"explain.html", "nothing.js", "..", "..%2f..%2fgo.mod", "page.js%00", ""} {
		wantError(t, ask(site, loopback, "GET", "/assets/"+name), 404, "")
	}
}

// The policy allows this host's own files, and neither what stands in the markup
// nor strings that become markup or code.
func TestPagePolicy(t *testing.T) {
	directives := map[string]string{}
	for d := range strings.SplitSeq(pagePolicy, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(d), " ")
		directives[name] = value
	}
	for name, want := range map[string]string{
		"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'", "img-src": "'self'", "frame-ancestors": "'none'",
		"base-uri": "'none'", "form-action": "'none'", "require-trusted-types-for": "'script'", "trusted-types": "'none'",
	} {
		if directives[name] != want {
			t.Errorf("%s is %q, want %q", name, directives[name], want)
		}
	}
	if strings.Contains(pagePolicy, "unsafe") || strings.Contains(pagePolicy, "*") {
		t.Errorf("the policy is loose: %s", pagePolicy)
	}
}

// Nothing in the sources would need more than the policy allows, or load anything
// from elsewhere.
func TestPageSources(t *testing.T) {
	forbidden := map[string]*regexp.Regexp{
		".html": regexp.MustCompile(`(?i)<script(?:\s[^>]*)?>[^<]|<style|\sstyle=|\son\w+=|javascript:|(?:src|href)="(?:https?:)?//`),
		".js":   regexp.MustCompile(`innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser|setTimeout\("|https?://[^)\s]*\.\w`),
		".css":  regexp.MustCompile(`@import|url\(`),
		".svg":  regexp.MustCompile(`<script|\son\w+=|href`),
	}
	err := fs.WalkDir(pageFiles, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := pageFiles.ReadFile(name)
		if err != nil {
			return err
		}
		pattern := forbidden[path.Ext(name)]
		if pattern == nil {
			return fmt.Errorf("%s: a kind of file that nobody checks", name)
		}
		if found := pattern.Find(bytes.ReplaceAll(text, []byte("http://www.w3.org/2000/svg"), nil)); found != nil { // which names, and loads nothing
			t.Errorf("%s has %q", name, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for bad, ext := range map[string]string{
		`<script>alert(1)</script>`: ".html", `<a style="x">`: ".html", `<img src=x onerror=1>`: ".html", `<link href="//x.example">`: ".html",
		`node.innerHTML = x`: ".js", `fetch("https://x.example/")`: ".js", `@import "x"`: ".css", `<svg onload=x>`: ".svg",
	} {
		if !forbidden[ext].MatchString(bad) {
			t.Errorf("%s would not be seen", bad)
		}
	}
}
