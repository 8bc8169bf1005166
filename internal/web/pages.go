package web

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/twwatch/twwatch/internal/advice"
)

//go:embed page
var pageFiles embed.FS

// pagePolicy lets a page load what this host serves, and nothing else: no
// script or style that stands in the markup, and no text that becomes markup.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// A file of the page, packed once.
type pageFile struct {
	body, gz  []byte
	kind, tag string
}

// pages holds what people see: the files of the page and the templates of
// explanations. It never changes.
type pages struct {
	files    map[string]*pageFile
	template *template.Template
}

func kinds() map[string]string {
	return map[string]string{
		".html": asHTML, ".css": "text/css; charset=utf-8",
		".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}
}

// newPages reads what is embedded; that can't fail at run time, since tests have
// read the same bytes.
func newPages() *pages {
	p := &pages{files: map[string]*pageFile{}}
	names, err := fs.Glob(pageFiles, "page/*")
	if err != nil {
		panic(err) // a bad pattern
	}
	for _, name := range names {
		body, err := pageFiles.ReadFile(name)
		if err != nil {
			panic(err)
		}
		p.files[path.Base(name)] = &pageFile{body: body, gz: pack(body), kind: kinds()[path.Ext(name)], tag: tagOf(body)}
	}
	p.template = template.Must(template.New("explain.html").Funcs(template.FuncMap{
		"plural": func(n int) bool { return n > 1 },
		"web": func(address string) bool {
			return strings.HasPrefix(address, "https://") || strings.HasPrefix(address, "http://")
		},
		"upper": func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
	}).Parse(string(p.files["explain.html"].body)))
	delete(p.files, "explain.html")
	return p
}

func (p *pages) send(w http.ResponseWriter, r *http.Request, f *pageFile) {
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // kept, and asked for whether it is still so
	send(w, r, f.kind, f.body, f.tag, func() []byte { return f.gz })
}

// page is the page at /.
func (s *site) page(w http.ResponseWriter, r *http.Request, _ string) {
	s.pages.send(w, r, s.pages.files["index.html"])
}

// asset is a file of the page.
func (s *site) asset(w http.ResponseWriter, r *http.Request, name string) {
	f := s.pages.files[name]
	if f == nil || name == "index.html" {
		refuse(w, http.StatusNotFound, "the page has no file of that name")
		return
	}
	s.pages.send(w, r, f)
}

// explainData is what the page of an explanation is made of.
type explainData struct {
	Title   string
	Root    string // the way back to /
	Version string
	Texts   []advice.Text
	Shelves []shelf
	Missing string // why there is no text
}

func (p *pages) explain(w http.ResponseWriter, r *http.Request, status int, data explainData) {
	var b bytes.Buffer
	if err := p.template.Execute(&b, data); err != nil {
		refuse(w, http.StatusInternalServerError, "the page can't be written: "+err.Error())
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Content-Type", kinds()[".html"])
	if status != http.StatusOK {
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = w.Write(b.Bytes()) // a client that has gone can't be told
		}
		return
	}
	f := &pageFile{body: b.Bytes(), kind: kinds()[".html"]}
	f.tag = tagOf(f.body)
	send(w, r, f.kind, f.body, f.tag, func() []byte { return pack(f.body) })
}
