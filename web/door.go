package web

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// door is what the two doors, staff and public, have in common: headers, limits,
// languages, templates, error pages, and that a panic ends one request and no
// more.
type door struct {
	name   string // of its folder of templates
	log    *slog.Logger
	words  map[language]words
	pages  map[language]map[string]*template.Template
	style  string // path of the style sheet, with its hash
	policy string // Content-Security-Policy
	busy   chan struct{}
	panics *atomic.Int64
}

const (
	maxBody     = 64 << 10         // of a form
	maxRequests = 128              // at the same time, at each door; more are answered 503
	pageTime    = 30 * time.Second // to write an answer; streams lengthen it
)

func newDoor(name string, log *slog.Logger, panics *atomic.Int64) *door {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &door{
		name: name, log: log, panics: panics, busy: make(chan struct{}, maxRequests),
		words: map[language]words{}, pages: map[language]map[string]*template.Template{},
		policy: "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	}
	css, err := embedded.ReadFile("static/console.css")
	if err != nil {
		panic(err) // it is part of the program
	}
	sum := sha256.Sum256(css)
	d.style = "/static/console.css?v=" + hex.EncodeToString(sum[:8])
	for _, lang := range []language{polishLang, englishLang} {
		d.words[lang] = readWords(lang)
		d.pages[lang] = d.readPages(lang)
	}
	return d
}

// readPages parses each page of the door together with the layout.
func (d *door) readPages(lang language) map[string]*template.Template {
	names, err := fs.Glob(embedded, "templates/"+d.name+"/*.html")
	if err != nil {
		panic(err)
	}
	pages := map[string]*template.Template{}
	base := template.Must(template.New("layout.html").Funcs(d.funcs(lang)).ParseFS(embedded, "templates/layout.html", "templates/parts.html"))
	for _, name := range append(names, "templates/error.html") {
		page := template.Must(template.Must(base.Clone()).ParseFS(embedded, name))
		pages[strings.TrimSuffix(path.Base(name), ".html")] = page
	}
	return pages
}

// funcs are what templates call, in a language.
func (d *door) funcs(lang language) template.FuncMap {
	w := d.words[lang]
	zone := ordinance.Warsaw
	return template.FuncMap{
		"t":    w.say,
		"has":  w.has,
		"href": lang.href,
		"time": func(t time.Time) string {
			if t.IsZero() {
				return "—"
			}
			return t.In(zone).Format("02.01.2006, 15:04")
		},
		"second": func(t time.Time) string { return t.In(zone).Format("02.01.2006, 15:04:05") },
		"day": func(day ordinance.Day) string {
			return fmt.Sprintf("%02d.%02d.%d", day.Date, day.Month, day.Year)
		},
		"thousandth": func(t time.Time) string {
			return strings.Replace(t.In(zone).Format("15:04:05.000"), ".", w.say("ladder.decimal"), 1)
		},
		"mos": func(mos float64) string {
			if mos == 0 {
				return "—"
			}
			return strings.Replace(fmt.Sprintf("%.1f", mos), ".", w.say("ladder.decimal"), 1)
		},
		"milli": func(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) },
		"span":  span,
		"input": newInput,
		"join":  strings.Join,
		"list":  func(items ...string) []string { return items },
	}
}

// view is what every page gets; the page's own part is Page.
type view struct {
	Lang    language
	Path    string // without the language, for the link to the other one
	Title   string // key
	Style   string
	Account *store.Account
	Menu    []menuItem
	Token   string // of forms
	Done    string // key of what was just done
	Error   bool   // the title says so
	Page    any
}

type menuItem struct {
	Path, Key string
	Here      bool
}

// render writes a page whole or not at all.
func (d *door) render(w http.ResponseWriter, status int, name string, v view) error {
	page := d.pages[v.Lang][name]
	if page == nil {
		return fmt.Errorf("there is no page %q", name)
	}
	v.Style = d.style
	var b bytes.Buffer
	if err := page.ExecuteTemplate(&b, "layout.html", v); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", string(v.Lang))
	w.Header().Set("Content-Length", fmt.Sprint(b.Len()))
	w.WriteHeader(status)
	if _, err := w.Write(b.Bytes()); err != nil {
		d.log.Debug("client went away", "err", err)
	}
	return nil
}

// refusal is an error that a page tells: a status and, for 409 and the like, the
// key of a sentence.
type refusal struct {
	status int
	key    string
	args   []any
}

func (r refusal) Error() string { return fmt.Sprintf("refused with %d %s", r.status, r.key) }

// statusOf maps what a handler returned.
func statusOf(err error) refusal {
	var r refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, store.ErrNotFound):
		return refusal{status: http.StatusNotFound}
	case errors.Is(err, store.ErrGone):
		return refusal{status: http.StatusGone}
	case errors.Is(err, store.ErrClosed):
		return refusal{status: http.StatusServiceUnavailable}
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return refusal{status: http.StatusRequestEntityTooLarge}
	}
	return refusal{status: http.StatusInternalServerError}
}

// fault is the error page's own part.
type fault struct {
	Status   int
	Sentence string
	Number   string // to quote, when the log has more
}

// fail shows the error page. What the program did wrong is logged under a number
// that the page shows; the error itself is not shown.
func (d *door) fail(w http.ResponseWriter, v view, err error) {
	r := statusOf(err)
	f := fault{Status: r.status}
	say := d.words[v.Lang]
	key := fmt.Sprintf("error.%d", r.status)
	if !say.has(key + ".text") {
		key = "error.400"
	}
	v.Title, v.Error = key, true
	f.Sentence = say.say(key + ".text")
	if r.key != "" {
		f.Sentence = say.say(r.key, r.args...)
	}
	if r.status >= 500 {
		f.Number = rand.Text()[:8]
		d.log.Error("page", "number", f.Number, "status", r.status, "err", err)
	}
	if r.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "10")
	}
	v.Page = f
	if err := d.render(w, r.status, "error", v); err != nil {
		d.log.Error("error page", "number", f.Number, "err", err)
		http.Error(w, http.StatusText(r.status), r.status)
	}
}

// guard is around everything that a door serves.
func (d *door) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", d.policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		lang, rest := inLanguage(r.URL.Path)
		v := view{Lang: lang, Path: rest}
		select {
		case d.busy <- struct{}{}:
			defer func() { <-d.busy }()
		default:
			d.fail(w, v, refusal{status: http.StatusServiceUnavailable})
			return
		}
		// A recorder in a test has no deadlines; a connection that has gone needs none.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pageTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			d.log.Debug("deadline", "err", err)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				d.panics.Add(1)
				d.fail(w, v, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		if lang != polishLang {
			u := *r.URL
			u.Path, u.RawPath = rest, ""
			r2 := *r
			r2.URL = &u
			r = &r2
		}
		next.ServeHTTP(w, r.WithContext(withLanguage(r.Context(), lang)))
	})
}

// static serves the style sheet; its address changes with what it holds.
func (d *door) static(w http.ResponseWriter, r *http.Request) {
	b, err := embedded.ReadFile("static/" + r.PathValue("file"))
	kind := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}[path.Ext(r.PathValue("file"))]
	if err != nil || kind == "" {
		lang := languageOf(r.Context())
		d.fail(w, view{Lang: lang, Path: r.URL.Path}, refusal{status: http.StatusNotFound})
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	send(w, kind, b, d.log)
}
