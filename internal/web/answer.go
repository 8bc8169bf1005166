package web

import (
	"context"
	"errors"
	"net/http"

	"github.com/twwatch/twwatch/collector/snapshot"
)

// An answerError is a refusal with its status.
type answerError struct {
	status int
	err    error
}

func (e *answerError) Error() string { return e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

func refusal(status int, why string) error { return &answerError{status, errors.New(why)} }

var errNotYet = errors.New(noFrame)

// A question is what serveAnswer is asked.
type question struct {
	route *route
	id    string
}

type questionKey struct{}

// answer serves a path whose answer is made anew for each request, a few
// requests at a time.
func (s *site) answer(w http.ResponseWriter, r *http.Request, id string) {
	found, _ := s.route(r.URL.Path)
	s.answers.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), questionKey{}, question{found, id})))
}

func (s *site) serveAnswer(w http.ResponseWriter, r *http.Request) {
	q, ok := r.Context().Value(questionKey{}).(question)
	if !ok {
		refuse(w, http.StatusInternalServerError, "no question")
		return
	}
	v, err := q.route.make(s, r, q.id)
	refused, isRefusal := errors.AsType[*answerError](err)
	switch {
	case errors.Is(err, errNotYet):
		notYet(w)
		return
	case isRefusal:
		refuse(w, refused.status, refused.Error())
		return
	case err != nil: // of a parameter
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	body, err := snapshot.EncodeValue(v)
	if err != nil {
		s.cfg.Logger.Error("an answer can't be encoded", "path", r.URL.Path, "err", err)
		refuse(w, http.StatusInternalServerError, "the answer can't be encoded: see the log")
		return
	}
	send(w, r, asJSON, body, tagOf(body), func() []byte { return pack(body) })
}

// frame is the newest report.
func (s *site) frame() (*snapshot.Report, error) {
	if frame := s.cfg.Hub.Latest(); frame != nil {
		return frame, nil
	}
	return nil, errNotYet
}
