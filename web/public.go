package web

import (
	"log/slog"
	"net/http"
	"sync/atomic"
)

// PublicConfig configures the residents' pages.
type PublicConfig struct {
	Panics *atomic.Int64 // counts requests that an internal error ended
	Log    *slog.Logger
}

// Public is the residents' door: no cookie, no login, and none of the console's
// routes.
type Public struct {
	*door
	handler http.Handler
}

// NewPublic makes it.
func NewPublic(cfg PublicConfig) *Public {
	if cfg.Panics == nil {
		cfg.Panics = new(atomic.Int64)
	}
	p := &Public{door: newDoor("public", cfg.Log, cfg.Panics)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /static/{file}", p.static)
	mux.HandleFunc("GET /{$}", p.startPage)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, view{Lang: languageOf(r.Context()), Path: r.URL.Path}, refusal{status: http.StatusNotFound})
	})
	p.handler = p.guard(mux)
	return p
}

func (p *Public) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// startPage says whose telephone this is; the chat, the form and the
// declarations join it as they are built.
func (p *Public) startPage(w http.ResponseWriter, r *http.Request) {
	v := view{Lang: languageOf(r.Context()), Path: r.URL.Path, Title: "title.public"}
	if err := p.render(w, http.StatusOK, "start", v); err != nil {
		p.fail(w, v, err)
	}
}
