package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"centralka/ordinance"
)

//go:embed static templates words
var embedded embed.FS

// StatusConfig configures the status endpoint.
type StatusConfig struct {
	// Snapshot takes the picture; it is called for each request and must be
	// quick.
	Snapshot func() Snapshot
	Version  string
	Log      *slog.Logger // nil discards
}

// refresh is how often /stan reloads itself, seconds; a query of stay keeps it
// from that, for who reads it slowly or by ear.
const (
	refresh = 5
	stay    = "bez-odswiezania"
)

// stan is what the template of /stan shows.
type stan struct {
	Snapshot
	Version string
	Refresh int // seconds; 0: it stays
	Totals  totals
}

// totals are the figures at the head of the page.
type totals struct{ Waiting, Ready, Agents, Phones, Registered int }

func count(s Snapshot) (t totals) {
	for _, q := range s.Queues {
		t.Waiting += q.Waiting
	}
	for _, a := range s.Agents {
		t.Agents++
		if a.State == "ready" {
			t.Ready++
		}
	}
	for _, p := range s.Phones {
		t.Phones++
		if p.Devices > 0 {
			t.Registered++
		}
	}
	return t
}

// NewStatus makes the status endpoint: /stan, /stan.json, /metrics, /healthz
// and /readyz. It takes GET and HEAD only.
func NewStatus(cfg StatusConfig) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	page := template.Must(template.New("stan.html").Funcs(statusFuncs).ParseFS(embedded, "templates/stan.html"))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{cfg})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/stan", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /stan", func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		s := cfg.picture()
		view := stan{Snapshot: s, Version: cfg.Version, Refresh: refresh, Totals: count(s)}
		if r.URL.Query().Has(stay) {
			view.Refresh = 0
		}
		err := page.Execute(&b, view)
		if err != nil {
			cfg.Log.Error("status page", "err", err)
			http.Error(w, "Błąd strony stanu.", http.StatusInternalServerError)
			return
		}
		send(w, "text/html; charset=utf-8", b.Bytes(), cfg.Log)
	})
	mux.HandleFunc("GET /stan.css", func(w http.ResponseWriter, r *http.Request) {
		b, err := embedded.ReadFile("static/stan.css")
		if err != nil {
			http.NotFound(w, r)
			return
		}
		send(w, "text/css; charset=utf-8", b, cfg.Log)
	})
	mux.HandleFunc("GET /stan.json", func(w http.ResponseWriter, r *http.Request) {
		b, err := json.MarshalIndent(struct {
			Version string `json:"version"`
			Snapshot
		}{cfg.Version, cfg.picture()}, "", "  ")
		if err != nil {
			cfg.Log.Error("status as JSON", "err", err)
			http.Error(w, "Internal Server Error", http.StatusInternalServerError)
			return
		}
		send(w, "application/json", append(b, '\n'), cfg.Log)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		send(w, "text/plain; charset=utf-8", []byte("ok\n"), cfg.Log)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		reasons := cfg.picture().NotReady
		if len(reasons) > 0 {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "not ready: "+strings.Join(reasons, "; "), http.StatusServiceUnavailable)
			return
		}
		send(w, "text/plain; charset=utf-8", []byte("ready\n"), cfg.Log)
	})
	return secured(mux)
}

func send(w http.ResponseWriter, contentType string, body []byte, log *slog.Logger) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if _, err := w.Write(body); err != nil {
		log.Debug("client went away", "err", err)
	}
}

// secured sets the headers that every answer carries.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// statusFuncs are what the page's template calls.
var statusFuncs = template.FuncMap{
	"czas": func(t time.Time) string {
		if t.IsZero() {
			return "—"
		}
		return t.In(ordinance.Warsaw).Format("02.01.2006, 15:04:05")
	},
	"dni": func(n int) string {
		if n == 1 {
			return "1 dzień"
		}
		return fmt.Sprintf("%d dni", n)
	},
	"od":      func(since, now time.Time) string { return span(now.Sub(since)) },
	"trwanie": span,
	"bajty":   bytesText,
	"odmowa": func(reason string) string {
		switch reason {
		case "not running":
			return "centrala dopiero rusza"
		case "draining":
			return "centrala kończy pracę: trwające rozmowy dobiegają końca, nowych nie przyjmuje"
		}
		if listener, ok := strings.CutPrefix(reason, "listener down: "); ok {
			return "gniazdo SIP nie działa: " + listener
		}
		if fault, ok := strings.CutPrefix(reason, "not recording: "); ok {
			return "nie można nagrywać, a bez nagrania rozmów się nie przyjmuje: " + fault
		}
		return reason
	},
	"milisekundy": func(d time.Duration) string { return decimal(float64(d)/float64(time.Millisecond)) + " ms" },
	"ocena":       decimal,
	"odrzut":      polish(map[string]string{"foreign": "obce", "malformed": "błędne", "unheard": "w czasie zawieszenia", "unclaimed": "przed połączeniem", "omitted": "cisza i klawisze", "overtaken": "zbyt późne", "unsent": "niewysłane", "forged": "podrobione (SRTP)", "replayed": "powtórzone (SRTP)"}),
	"strata":      polish(map[string]string{"ring": "pakiety, bufor pełny", "disk": "pakiety, dysk odmówił zapisu"}),
	"faza":        polish(map[string]string{"setup": "zestawianie", "announcement": "komunikat", "queue": "kolejka", "ringing": "dzwoni u pracownika", "talking": "rozmowa", "closing message": "komunikat końcowy", "ending": "kończy się"}),
	"kierunek":    polish(map[string]string{"incoming": "przychodzące", "outgoing": "wychodzące", "internal": "wewnętrzne"}),
	"agent":       polish(map[string]string{"away": "nieobecny", "ready": "gotowy", "offered": "dzwoni", "talking": "rozmawia", "wrap-up": "po rozmowie"}),
	"powod":       polish(map[string]string{"unregistered": "telefon niezarejestrowany", "quiet": "nie przeszkadzać", "unanswered": "nie odbierał połączeń", "new": "nie zalogował się", "said": "na własne życzenie", "break": "przerwa", "meeting": "spotkanie", "training": "szkolenie", "pause": "pauza"}),
	"wynik":       polish(map[string]string{"ok": "kompletne", "degraded": "niepełne", "failed": "brak nagrania – awaria", "none": "nienagrywane"}),
	"przyczyna": polish(map[string]string{
		"caller_hung_up": "rozłączył się dzwoniący", "called_hung_up": "rozłączył się odbierający",
		"hung_up_in_announcement": "rozłączono w trakcie komunikatu", "abandoned": "porzucone w kolejce", "cancelled": "anulowane przed odebraniem",
		"busy": "zajęte", "no_answer": "brak odpowiedzi", "declined": "odrzucone", "unreachable": "nieosiągalny", "queue_timeout": "przepełnienie kolejki lub zbyt długie oczekiwanie",
		"closed": "poza godzinami pracy", "not_found": "nie ma takiego numeru", "forbidden": "zabronione", "not_acceptable": "brak wspólnego kodeka",
		"overload": "brak gotowości lub zasobów", "no_ack": "brak potwierdzenia", "media_timeout": "cisza w sieci", "session_expired": "druga strona przestała odpowiadać", "shutdown": "zatrzymanie centrali",
		"interrupted": "przerwane awarią", "internal_error": "błąd wewnętrzny",
	}),
}

func polish(words map[string]string) func(string) string {
	return func(s string) string {
		if w, ok := words[s]; ok {
			return w
		}
		return s
	}
}

// span writes a duration as people read it: "3 min 12 s".
func span(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < 0:
		return "0 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d dni", d/(24*time.Hour))
}

// bytesText writes a size with a decimal comma: "12,5 GB".
func bytesText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f /= 1000
		i++
	}
	s := fmt.Sprintf("%.1f", f)
	if i == 0 {
		s = fmt.Sprint(n)
	}
	return strings.Replace(s, ".", ",", 1) + " " + units[i]
}

// decimal writes a figure with one decimal, as Polish does.
func decimal(f float64) string { return strings.Replace(fmt.Sprintf("%.1f", f), ".", ",", 1) }
