package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"

	"centralka/ordinance"
	"centralka/pbx"
	"centralka/store"
)

// StaffConfig configures the console.
type StaffConfig struct {
	Store *store.Store
	// Telephony is the configuration that runs, and Doubts what its check found.
	Telephony func() pbx.Config
	Doubts    func() []string
	Snapshot  func() Snapshot
	// Ladder returns the SIP messages of a call, also of one that is up.
	Ladder func(ordinance.Day, store.ID) (store.Ladder, error)
	// Secure tells that the door is behind TLS: cookies then carry the prefix
	// __Host-. Without TLS the door must be on loopback.
	Secure bool
	Panics *atomic.Int64 // counts requests that an internal error ended
	Log    *slog.Logger
}

// Staff is the console. It serves the routes of its table and nothing else.
type Staff struct {
	*door
	cfg      StaffConfig
	throttle *throttle
	cross    *http.CrossOriginProtection
	handler  http.Handler
}

// kind is how a route answers and refuses.
type kind string

const (
	page    kind = "page"    // refused with 403
	content kind = "content" // refused with 404: what one may not open does not exist (S0-d)
	quiet   kind = "quiet"   // a page that asks by itself: it does not keep a session alive
)

// route is an address of the console. It is written without field names, so
// that one without a permission does not compile.
type route struct {
	method, pattern string
	may             permission
	kind            kind
	handle          func(*Staff, *exchange) error
}

// exchange is one request and its answer.
type exchange struct {
	w       http.ResponseWriter
	r       *http.Request
	lang    language
	route   route
	token   string // of the session
	session store.Session
	account store.Account
	rights  []right // what the account may do of the route's action
}

// NewStaff makes the console.
func NewStaff(cfg StaffConfig) *Staff { return newStaff(cfg, staffRoutes()) }

func newStaff(cfg StaffConfig, routes []route) *Staff {
	if cfg.Panics == nil {
		cfg.Panics = new(atomic.Int64)
	}
	s := &Staff{door: newDoor("staff", cfg.Log, cfg.Panics), cfg: cfg, throttle: newThrottle(), cross: http.NewCrossOriginProtection()}
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.Handle(rt.method+" "+rt.pattern, s.serve(rt))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, view{Lang: languageOf(r.Context()), Path: r.URL.Path}, refusal{status: http.StatusNotFound})
	})
	s.handler = s.guard(mux)
	return s
}

func (s *Staff) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// serve is the one way to a handler: the session, the origin and token of what
// changes something, the permission, and only then the handler.
func (s *Staff) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{w: w, r: r, lang: languageOf(r.Context()), route: rt}
		if err := s.admit(x); err != nil {
			s.refuse(x, err)
			return
		}
		if err := rt.handle(s, x); err != nil {
			s.refuse(x, err)
		}
	})
}

// errors of admit that are answered with the login page.
var errLogin = errors.New("not logged in")

// admit decides whether a request may go on.
func (s *Staff) admit(x *exchange) error {
	if err := s.recognise(x); err != nil {
		return err
	}
	if !safe(x.r.Method) {
		if err := s.cross.Check(x.r); err != nil {
			return refusal{status: http.StatusForbidden, key: "error.origin"}
		}
		if !x.session.ID.IsZero() {
			if !s.hasToken(x) {
				return refusal{status: http.StatusForbidden, key: "error.token"}
			}
		} else if x.route.may != mayAnybody {
			return errLogin
		}
	}
	switch p := x.route.may; {
	case p == mayAnybody:
		return nil
	case p == mayHalfway:
		if x.session.Stage != store.StagePassword {
			return errLogin
		}
		return nil
	case x.session.Stage != store.StageFull:
		return errLogin
	case may(x.account, p):
		x.rights = rightsOf(x.account, p)
		return nil
	}
	return s.deny(x)
}

// deny notes a refusal in the audit log and says what is to be answered.
func (s *Staff) deny(x *exchange) error {
	status := http.StatusForbidden
	if x.route.kind == content {
		status = http.StatusNotFound
	}
	err := s.cfg.Store.Audit(store.AuditEvent{
		Actor: x.account.ID, Action: store.ActionPageOpened, Object: store.RouteObject(x.route.method + " " + x.route.pattern), Outcome: store.Denied,
	})
	if err != nil {
		return fmt.Errorf("note a refusal: %w", err)
	}
	return refusal{status: status}
}

// recognise finds the session of a request, if it has one.
func (s *Staff) recognise(x *exchange) error {
	c, err := x.r.Cookie(s.cookieName())
	if err != nil {
		return nil
	}
	session, account, err := s.cfg.Store.Session(c.Value, x.route.kind != quiet)
	if errors.Is(err, store.ErrNoSession) {
		return nil
	}
	if err != nil {
		return err
	}
	x.token, x.session, x.account = c.Value, session, account
	return nil
}

// refuse answers an error.
func (s *Staff) refuse(x *exchange, err error) {
	if errors.Is(err, errLogin) {
		to := "/logowanie"
		if x.session.Stage == store.StageFull {
			to = "/" // it is halfway that is not for who has arrived
		} else if next := x.r.URL.RequestURI(); x.r.Method == http.MethodGet && next != "/" && x.route.may != mayHalfway {
			to += "?dalej=" + url.QueryEscape(next)
		}
		x.redirect(to)
		return
	}
	s.fail(x.w, s.view(x, "", nil), err)
}

// view fills in what every page shows.
func (s *Staff) view(x *exchange, title string, own any) view {
	v := view{Lang: x.lang, Path: x.r.URL.Path, Title: title, Page: own}
	if x.session.Stage == store.StageFull {
		v.Account = &x.account
		for _, m := range menu {
			if may(x.account, m.may) {
				v.Menu = append(v.Menu, menuItem{Path: m.path, Key: m.key, Here: m.path == x.r.URL.Path})
			}
		}
	}
	if x.token != "" {
		v.Token = formToken(x.token)
	}
	if done := "done." + x.r.URL.Query().Get("stan"); s.words[x.lang].has(done) {
		v.Done = done
	}
	return v
}

// show answers with a page.
func (s *Staff) show(x *exchange, name string, own any) error {
	return s.showStatus(x, http.StatusOK, name, own)
}

func (s *Staff) showStatus(x *exchange, status int, name string, own any) error {
	return s.render(x.w, status, name, s.view(x, "title."+name, own))
}

// redirect sends the browser to a page of ours, which it gets.
func (x *exchange) redirect(to string) {
	http.Redirect(x.w, x.r, x.lang.href(to), http.StatusSeeOther)
}

// can tells whether the account has one of the rights to what the route does.
func (x *exchange) can(some ...right) bool {
	return slices.ContainsFunc(some, func(r right) bool { return slices.Contains(x.rights, r) })
}

// id reads an id of the path; one that is none is not found.
func (x *exchange) id(name string) (store.ID, error) {
	id, err := store.ParseID(x.r.PathValue(name))
	if err != nil {
		return store.ID{}, store.ErrNotFound
	}
	return id, nil
}

// day reads a day of the path; one that is none is not found.
func (x *exchange) day(name string) (ordinance.Day, error) {
	day, err := ordinance.ParseDay(x.r.PathValue(name))
	if err != nil {
		return ordinance.Day{}, store.ErrNotFound
	}
	return day, nil
}

func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

type languageKey struct{}

func withLanguage(ctx context.Context, l language) context.Context {
	return context.WithValue(ctx, languageKey{}, l)
}

func languageOf(ctx context.Context) language {
	if l, ok := ctx.Value(languageKey{}).(language); ok {
		return l
	}
	return polishLang
}
