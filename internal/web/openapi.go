package web

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.json
var openAPIDocument []byte

func (s *site) openAPI(w http.ResponseWriter, r *http.Request, _ string) {
	if err := eachParameter(r.URL.RawQuery, nil, nil); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	send(w, r, asJSON, openAPIDocument, tagOf(openAPIDocument), func() []byte { return pack(openAPIDocument) })
}
