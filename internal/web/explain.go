package web

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/twwatch/twwatch/collector/snapshot"
	"github.com/twwatch/twwatch/internal/advice"
)

// Explained is the answer of /api/v1/explain (IDs) and of
// /api/v1/explain/{id} (Texts), as explain --output=json writes it.
type Explained struct {
	Schema string        `json:"schema"` // twwatch.explain/v1
	IDs    []advice.ID   `json:"ids,omitempty"`
	Texts  []advice.Text `json:"texts,omitempty"`
}

const explainSchema = "twwatch.explain/v1"

// maxID is the most bytes that the id of an explanation can have.
const maxID = 128

var errNoLibrary = refusal(http.StatusNotFound, "nothing can be explained here: this program was started without its library")

func (s *site) explainAll(r *http.Request, _ string) (any, error) {
	if err := eachParameter(r.URL.RawQuery, nil, nil); err != nil {
		return nil, err
	}
	if s.cfg.Library == nil {
		return nil, errNoLibrary
	}
	return &Explained{Schema: explainSchema, IDs: s.cfg.Library.IDs()}, nil
}

func explainParameters() []parameter {
	return []parameter{{name: "format", about: "How: json (where it is missing) or text.", schema: oneOf("json", "text")}}
}

// explainOne answers with an explanation, as JSON or as text.
func (s *site) explainOne(w http.ResponseWriter, r *http.Request, id string) {
	format := "json"
	err := eachParameter(r.URL.RawQuery, explainParameters(), func(_, value string) (want string) {
		format, want = choiceOf(value, []string{"json", "text"})
		return want
	})
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	texts, status, why := s.texts(id)
	if status != 0 {
		refuse(w, status, why)
		return
	}
	var body []byte
	kind := asJSON
	if format == "json" {
		body, err = snapshot.EncodeValue(&Explained{Schema: explainSchema, Texts: texts})
	} else {
		kind = asPlain
		body, err = asText(texts)
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, "the explanation can't be written: "+err.Error())
		return
	}
	send(w, r, kind, body, tagOf(body), func() []byte { return pack(body) })
}

func asText(texts []advice.Text) ([]byte, error) {
	var b bytes.Buffer
	for i := range texts {
		if i > 0 {
			b.WriteString("\n" + strings.Repeat("-", advice.Columns) + "\n\n")
		}
		if err := texts[i].Write(&b); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// texts are the explanations of an id, with what they concern counted in the
// newest report; a status is a refusal.
func (s *site) texts(id string) (texts []advice.Text, status int, why string) {
	if s.cfg.Library == nil {
		return nil, http.StatusNotFound, errNoLibrary.Error()
	}
	if len(id) > maxID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, http.StatusBadRequest, quote(id) + " is no id: want letters, digits and hyphens, such as time-wait"
	}
	texts = s.cfg.Library.Explain(id)
	if texts == nil {
		hint := ""
		if near := s.cfg.Library.Suggest(id); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "? "
		}
		return nil, http.StatusNotFound, "nothing is called " + quote(id) + ": " + hint + "/api/v1/explain lists everything"
	}
	frame := s.cfg.Hub.Latest()
	for i := range texts {
		switch {
		case len(texts[i].NowAsks) == 0:
		case frame == nil:
			texts[i].NowMissing = "the first pass has not ended yet"
		default:
			texts[i].Now = advice.Now(texts[i].NowAsks, frame)
		}
	}
	return texts, 0, ""
}

// A shelf is a part of the list of all that can be explained.
type shelf struct {
	Heading string
	IDs     []explainLink
}

type explainLink struct {
	advice.ID
	Path string // of its page, below /explain
}

// explainIndex is the list, for people.
func (s *site) explainIndex(w http.ResponseWriter, r *http.Request, _ string) {
	if s.cfg.Library == nil {
		refuse(w, http.StatusNotFound, errNoLibrary.Error())
		return
	}
	ids := s.cfg.Library.IDs()
	var shelves []shelf
	for _, id := range ids {
		heading := headingOf(id)
		if len(shelves) == 0 || shelves[len(shelves)-1].Heading != heading {
			shelves = append(shelves, shelf{Heading: heading})
		}
		last := &shelves[len(shelves)-1]
		last.IDs = append(last.IDs, explainLink{id, pathOf(ids, id)})
	}
	s.pages.explain(w, r, http.StatusOK, explainData{Title: "Explained", Root: "", Shelves: shelves, Version: s.cfg.Version})
}

func headingOf(id advice.ID) string {
	switch {
	case id.Kind == advice.KindFinding:
		return "Findings"
	case id.Kind == advice.KindTopic && id.Group != "":
		return strings.ToUpper(id.Group[:1]) + id.Group[1:]
	case id.Kind == advice.KindRemedy:
		return "Remedies"
	case id.Kind == advice.KindService:
		return "Services"
	case id.Kind == advice.KindRuntime:
		return "Programs"
	}
	return "More"
}

// pathOf is an id's page, named with its kind where several share the id.
func pathOf(ids []advice.ID, id advice.ID) string {
	shared := slices.ContainsFunc(ids, func(o advice.ID) bool { return o.ID == id.ID && o.Kind != id.Kind })
	if shared {
		return url.PathEscape(id.Kind + ":" + id.ID)
	}
	return url.PathEscape(id.ID)
}

// explainPage is an explanation for people.
func (s *site) explainPage(w http.ResponseWriter, r *http.Request, id string) {
	texts, status, why := s.texts(id)
	w.Header().Set("Vary", "Accept")
	switch {
	case status != 0 && !strings.Contains(r.Header.Get("Accept"), "text/html"):
		refuse(w, status, why)
		return
	case status != 0:
		s.pages.explain(w, r, status, explainData{Title: http.StatusText(status), Root: "../", Missing: why, Version: s.cfg.Version})
		return
	}
	s.pages.explain(w, r, http.StatusOK, explainData{Title: texts[0].Title, Root: "../", Texts: texts, Version: s.cfg.Version})
}
