package web

import (
	"encoding/base32"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"

	"centralka/desk"
	"centralka/pbx"
	"centralka/store"
)

const testDay = "2026-11-02"

const testPassword = "poprawny koń bateria"

// console is a console over a real vault.
type console struct {
	t     *testing.T
	store *store.Store
	staff *Staff
}

func newConsole(t *testing.T, more ...route) *console {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "centralka-web-") // where an fsync costs nothing
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s, err := store.Open(store.Config{Dir: filepath.Join(dir, "vault"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := StaffConfig{
		Store: s,
		Telephony: func() pbx.Config {
			return pbx.Config{
				Hours:      []desk.HoursConfig{{Name: "cim", Week: []string{"mon-fri 07:30-15:30"}, Holidays: "pl"}},
				Extensions: []pbx.ExtensionConfig{{Number: "101", Name: "Stanowisko 1", Agent: true}},
				Trunks:     []pbx.TrunkConfig{{Name: "operator", Server: "sip.operator.example"}},
				Queues:     []pbx.QueueConfig{{Name: "cim", Members: []string{"101"}}},
				Secrets:    pbx.Secrets{Extensions: map[string]string{"101": "tajne-haslo-telefonu"}},
			}
		},
		Doubts:   func() []string { return nil },
		Snapshot: func() Snapshot { return Snapshot{} },
		Ladder:   s.Ladder,
		Log:      slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	return &console{t, s, newStaff(cfg, append(staffRoutes(), more...))}
}

// account makes one with roles, whose first password is to be changed.
func (c *console) account(login string, roles ...store.Role) store.Account {
	c.t.Helper()
	unit := store.UnitBOI
	if slices.Contains(roles, store.RoleAdministrator) {
		unit = store.UnitInformatics
	}
	a, err := c.store.AddAccount(store.Account{Login: login, Name: "Pracownik " + login, Unit: unit, Roles: roles}, testPassword, store.ID{})
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// visitor is a browser: it keeps its cookie and gets redirections itself.
type visitor struct {
	*console
	cookie string
}

// signedIn is a visitor with a whole session.
func (c *console) signedIn(a store.Account) *visitor {
	c.t.Helper()
	token, _, err := c.store.BeginSession(a.ID, store.StageFull)
	if err != nil {
		c.t.Fatal(err)
	}
	return &visitor{c, token}
}

func (v *visitor) do(method, path string, form url.Values, header ...string) (*http.Response, string) {
	v.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequestWithContext(v.t.Context(), method, path, body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if v.cookie != "" {
		r.AddCookie(&http.Cookie{Name: "centralka", Value: v.cookie})
	}
	w := httptest.NewRecorder()
	v.staff.ServeHTTP(w, r)
	res := w.Result()
	for _, k := range res.Cookies() {
		v.cookie = k.Value
	}
	return res, w.Body.String()
}

func (v *visitor) get(path string) (*http.Response, string) { return v.do("GET", path, nil) }

// post sends a form with the token of the session.
func (v *visitor) post(path string, pairs ...string) (*http.Response, string) {
	form := url.Values{tokenField: {formToken(v.cookie)}}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return v.do("POST", path, form)
}

// accessTable is the matrix of roles and actions again, by hand: what it says and
// what the console does must be the same. Its columns are agent, head,
// designated, registrar, director, officer, unit head, administrator, secretary;
// + is yes, . is no.
const accessTable = `
answer      + + . . . . . . .
watch       + + . . + . . + .
hours       . + . . . . . + .
call-back   + + . . . . . . .
status      . + . . + . . + .
search      . + + + + . . + .
open        . + + . + . . + .
export      . + . . + + . + .
register    . + + + + . . . .
opine       . . . . + + + . .
decide      . . . . + . . . .
conduct     . + + . . . . . .
audit       + + + + + + . + +
retention   . + + . + + . + +
statistics  + + . . + . . + +
administer  . . . . . . . + .
`

func readAccessTable(t *testing.T) map[permission][]bool {
	t.Helper()
	table := map[permission][]bool{}
	for line := range strings.Lines(strings.TrimSpace(accessTable)) {
		f := strings.Fields(line)
		if len(f) != 1+len(columns) {
			t.Fatalf("row %q has %d cells", f[0], len(f)-1)
		}
		for _, cell := range f[1:] {
			table[permission(f[0])] = append(table[permission(f[0])], cell == "+")
		}
	}
	return table
}

// TestAccessMatrix tries every cell of the table over HTTP, at an address of the
// test's for each action and at every address that the console has; what is
// refused is in the audit log, once.
func TestAccessMatrix(t *testing.T) {
	table := readAccessTable(t)
	var probes []route
	for p := range table {
		probes = append(probes,
			route{"GET", "/proba/" + string(p), p, page, func(s *Staff, x *exchange) error { x.w.WriteHeader(http.StatusNoContent); return nil }},
			route{"GET", "/tresc/" + string(p), p, content, func(s *Staff, x *exchange) error { x.w.WriteHeader(http.StatusNoContent); return nil }})
	}
	c := newConsole(t, probes...)
	if len(table) != len(matrix) {
		t.Errorf("the table has %d actions, the matrix %d", len(table), len(matrix))
	}
	path := strings.NewReplacer("{$}", "", "{day}", testDay, "{id}", store.ID{1}.String(), "{file}", "console.css")
	for column, role := range columns {
		v := c.signedIn(c.account(strings.ReplaceAll(string(role), "_", "-"), role))
		for _, rt := range append(staffRoutes(), probes...) {
			row, ruled := table[rt.may]
			if !ruled && rt.may != maySigned {
				continue // logging in
			}
			allowed := !ruled || row[column]
			before, err := c.store.AuditHead()
			if err != nil {
				t.Fatal(err)
			}
			var res *http.Response
			if rt.method == "POST" {
				res, _ = v.post(path.Replace(rt.pattern))
			} else {
				res, _ = v.get(path.Replace(rt.pattern))
			}
			name := fmt.Sprintf("%s %s %s", role, rt.method, rt.pattern)
			refused := res.StatusCode == http.StatusForbidden || rt.kind == content && res.StatusCode == http.StatusNotFound
			switch {
			case allowed && (refused || res.StatusCode >= 500 || res.StatusCode == http.StatusSeeOther && strings.Contains(res.Header.Get("Location"), "logowanie")):
				t.Errorf("%s: %d, and it is allowed", name, res.StatusCode)
			case !allowed && !refused:
				t.Errorf("%s: %d, and it is not allowed", name, res.StatusCode)
			case !allowed && rt.kind == content && res.StatusCode != http.StatusNotFound:
				t.Errorf("%s: %d tells that there is something", name, res.StatusCode)
			}
			for e, err := range c.store.AuditLog(store.AuditFilter{Outcome: store.Denied}) {
				if err != nil {
					t.Fatal(err)
				}
				noted := e.Seq == before.Seq+1 && e.Action == store.ActionPageOpened && e.Object == store.RouteObject(rt.method+" "+rt.pattern)
				if noted == allowed {
					t.Errorf("%s: noted as refused is %v", name, noted)
				}
				break
			}
		}
	}
}

// TestEveryRouteHasAPermission: of the matrix or one of the three for logging
// in, and every cell of the matrix is a right.
func TestEveryRouteHasAPermission(t *testing.T) {
	known := []permission{mayAnybody, mayHalfway, maySigned}
	for p := range matrix {
		known = append(known, p)
	}
	seen := map[string]bool{}
	for _, rt := range staffRoutes() {
		if !slices.Contains(known, rt.may) || rt.kind == "" || rt.handle == nil {
			t.Errorf("%s %s: permission %q, kind %q", rt.method, rt.pattern, rt.may, rt.kind)
		}
		if rt.may == mayAnybody && !strings.HasPrefix(rt.pattern, "/logowanie") && !strings.HasPrefix(rt.pattern, "/static/") && rt.pattern != "/wylogowanie" {
			t.Errorf("%s %s is open to anybody", rt.method, rt.pattern)
		}
		seen[rt.pattern] = true
	}
	for _, m := range menu {
		if !seen[m.path] && m.path != "/" {
			t.Errorf("the menu leads to %s, which is no page", m.path)
		}
	}
}

// TestNobodyGetsIn: without a session every page leads to the login and changes
// nothing.
func TestNobodyGetsIn(t *testing.T) {
	c := newConsole(t)
	v := &visitor{c, ""}
	for _, rt := range staffRoutes() {
		if rt.may == mayAnybody {
			continue
		}
		res, _ := v.do(rt.method, strings.NewReplacer("{$}", "", "{day}", testDay, "{id}", store.ID{1}.String()).Replace(rt.pattern), nil)
		if to := res.Header.Get("Location"); res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to, "/logowanie") {
			t.Errorf("%s %s: %d to %q", rt.method, rt.pattern, res.StatusCode, to)
		}
	}
}

// codeFor is the code of RFC 6238 that an app shows.
func codeFor(t *testing.T, secret string, now time.Time) string {
	t.Helper()
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha1.New, key)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(now.Unix()/30)))
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:])&0x7fffffff%1_000_000)
}

var secretOnPage = regexp.MustCompile(`id="secret">([A-Z2-7 ]+)<`)

// TestFirstLogin: password, a new one, the second factor, and then the page that
// was wanted; a code is taken once, and half a session opens nothing.
func TestFirstLogin(t *testing.T) {
	c := newConsole(t)
	c.account("anna", store.RoleHead)
	v := &visitor{c, ""}
	lead := func(res *http.Response, want string) {
		t.Helper()
		if to := res.Header.Get("Location"); res.StatusCode != http.StatusSeeOther || to != want {
			t.Fatalf("%d to %q, want %q", res.StatusCode, to, want)
		}
	}
	res, _ := v.get("/dziennik?action=login")
	lead(res, "/logowanie?dalej=%2Fdziennik%3Faction%3Dlogin")
	if res, body := v.post("/logowanie", "login", "anna", "password", "złe hasło jest złe"); res.StatusCode != 422 || !strings.Contains(body, `href="#f-login"`) || !strings.Contains(body, `value="anna"`) || strings.Contains(body, "złe hasło jest") {
		t.Errorf("a wrong password: %d\n%s", res.StatusCode, body)
	}
	res, _ = v.post("/logowanie", "login", "anna", "password", testPassword, "dalej", "/dziennik")
	lead(res, "/logowanie/haslo?dalej=%2Fdziennik")
	res, _ = v.get("/dziennik")
	lead(res, "/logowanie?dalej=%2Fdziennik") // half a session opens nothing
	if res, _ := v.post("/logowanie/haslo", "password", "nowe hasło Anny", "again", "inne hasło"); res.StatusCode != 422 {
		t.Errorf("passwords that differ: %d", res.StatusCode)
	}
	res, _ = v.post("/logowanie/haslo", "password", "nowe hasło do konta", "again", "nowe hasło do konta", "dalej", "/dziennik")
	lead(res, "/logowanie/rejestracja?dalej=%2Fdziennik")
	_, body := v.get("/logowanie/rejestracja")
	m := secretOnPage.FindStringSubmatch(body)
	if m == nil || !strings.Contains(html.UnescapeString(body), "otpauth://totp/centralka:anna?secret=") {
		t.Fatalf("no secret on\n%s", body)
	}
	secret := strings.ReplaceAll(m[1], " ", "")
	if res, _ := v.post("/logowanie/rejestracja", "code", "000000"); res.StatusCode != 422 {
		t.Errorf("a wrong code: %d", res.StatusCode)
	}
	half, code := v.cookie, codeFor(t, secret, time.Now())
	res, _ = v.post("/logowanie/rejestracja", "code", code, "dalej", "/dziennik")
	lead(res, "/dziennik")
	if v.cookie == half {
		t.Error("the whole session has the token of the half one")
	}
	if res, body := v.get("/dziennik"); res.StatusCode != 200 || !strings.Contains(body, "Pracownik anna") || !strings.Contains(body, "odmowa") {
		t.Errorf("the page that was wanted: %d", res.StatusCode)
	}
	if res, _ := (&visitor{c, half}).get("/konto"); res.StatusCode != http.StatusSeeOther {
		t.Errorf("the half session's token still opens: %d", res.StatusCode)
	}
	second := &visitor{c, ""}
	res, _ = second.post("/logowanie", "login", "anna", "password", "nowe hasło do konta")
	lead(res, "/logowanie/kod")
	if res, _ := second.post("/logowanie/kod", "code", code); res.StatusCode != 422 {
		t.Errorf("a code for the second time: %d", res.StatusCode)
	}
	res, _ = v.post("/wylogowanie")
	lead(res, "/logowanie?stan=wylogowano")
	res, _ = v.get("/konto")
	lead(res, "/logowanie?dalej=%2Fkonto")
	for _, bad := range []string{"//evil.example", "https://evil.example", "/\\evil.example"} {
		if _, body := v.get("/logowanie?dalej=" + url.QueryEscape(bad)); strings.Contains(body, "evil") {
			t.Errorf("%q is led to after login", bad)
		}
	}
}

// TestFormsAreOurs: a form without the session's token, or from another site,
// changes nothing.
func TestFormsAreOurs(t *testing.T) {
	c := newConsole(t)
	a := c.account("admin", store.RoleAdministrator)
	v := c.signedIn(a)
	form := url.Values{"name": {"Wydział Nowy"}}
	if res, _ := v.do("POST", "/admin/jednostki", form); res.StatusCode != 403 {
		t.Errorf("no token: %d", res.StatusCode)
	}
	form.Set(tokenField, formToken(v.cookie))
	if res, _ := v.do("POST", "/admin/jednostki", form, "Sec-Fetch-Site", "cross-site"); res.StatusCode != 403 {
		t.Errorf("from another site: %d", res.StatusCode)
	}
	if units, err := c.store.Units(); err != nil || len(units) != 2 {
		t.Errorf("units %v %v", units, err)
	}
	if res, _ := v.do("POST", "/admin/jednostki", form, "Sec-Fetch-Site", "same-origin"); res.StatusCode != 303 {
		t.Errorf("our own: %d", res.StatusCode)
	}
	form.Set("name", strings.Repeat("x", maxBody+1))
	if res, _ := v.do("POST", "/admin/jednostki", form); res.StatusCode != 403 && res.StatusCode != 413 {
		t.Errorf("a form of %d bytes: %d", maxBody, res.StatusCode)
	}
}

// TestHeaders: of every answer, on both doors, errors included; a cookie over
// TLS is bound to its host.
func TestHeaders(t *testing.T) {
	c := newConsole(t)
	doors := map[string]http.Handler{"staff": c.staff, "public": NewPublic(PublicConfig{})}
	for name, door := range doors {
		for _, path := range []string{"/", "/logowanie", "/nie-ma", "/en/", "/static/console.css", "/static/..%2fwords"} {
			w := httptest.NewRecorder()
			door.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
			for header, want := range map[string]string{
				"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Permissions-Policy": "camera=()",
			} {
				if !strings.HasPrefix(w.Header().Get(header), want) {
					t.Errorf("%s %s: %s is %q", name, path, header, w.Header().Get(header))
				}
			}
			if cached := w.Header().Get("Cache-Control"); !strings.HasPrefix(path, "/static/c") && cached != "no-store" {
				t.Errorf("%s %s: Cache-Control %q", name, path, cached)
			}
			if name == "public" && len(w.Result().Cookies()) > 0 {
				t.Errorf("%s sets a cookie", path)
			}
		}
	}
	secure := newStaff(StaffConfig{Store: c.store, Secure: true}, nil)
	w := httptest.NewRecorder()
	secure.setCookie(w, "x")
	if got := w.Header().Get("Set-Cookie"); got != "__Host-centralka=x; Path=/; HttpOnly; Secure; SameSite=Lax" {
		t.Errorf("cookie %q", got)
	}
}

// TestDoorsAreApart: neither serves the other's routes.
func TestDoorsAreApart(t *testing.T) {
	public := NewPublic(PublicConfig{})
	for _, rt := range staffRoutes() {
		if rt.pattern == "/{$}" || strings.HasPrefix(rt.pattern, "/static/") {
			continue
		}
		for _, path := range []string{rt.pattern, "/en" + rt.pattern} {
			w := httptest.NewRecorder()
			public.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), rt.method, strings.NewReplacer("{day}", testDay, "{id}", store.ID{1}.String()).Replace(path), nil))
			if w.Code != http.StatusNotFound {
				t.Errorf("the public door answers %s %s with %d", rt.method, path, w.Code)
			}
		}
	}
}

// TestPanicEndsOneRequest: it is counted, answered with a number, and shows
// nothing of what happened.
func TestPanicEndsOneRequest(t *testing.T) {
	panics := new(atomic.Int64)
	c := newConsole(t)
	s := newStaff(StaffConfig{Store: c.store, Panics: panics}, []route{{"GET", "/pada", mayAnybody, page, func(*Staff, *exchange) error { panic("secret detail") }}})
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/pada", nil))
	if w.Code != 500 || panics.Load() != 1 || strings.Contains(w.Body.String(), "secret detail") || !strings.Contains(w.Body.String(), "Numer błędu: ") {
		t.Errorf("%d, %d counted\n%s", w.Code, panics.Load(), w.Body)
	}
}

// TestGuessing: wrong passwords cost time, without naming an address anywhere.
func TestGuessing(t *testing.T) {
	th := newThrottle()
	wait := func(remote, login string) time.Duration {
		g, wait := th.begin(remote, login)
		if wait <= 0 {
			g.takeBack()
		}
		return wait
	}
	for range freeByAddress {
		if wait("192.0.2.7:1", "anna") > 0 {
			t.Fatal("a first guess has to wait")
		}
		th.begin("192.0.2.7:1", "anna")
	}
	th.begin("192.0.2.7:2", "jan")
	if wait("192.0.2.7:3", "ewa") <= 0 {
		t.Error("an address that guesses does not wait")
	}
	if wait("192.0.2.8:1", "anna") > 0 {
		t.Error("a handful of guesses locks a login out")
	}
	for i := range freeByLogin {
		th.begin(fmt.Sprintf("198.51.100.%d:1", i), "anna")
	}
	if wait("192.0.2.8:1", "anna") <= 0 {
		t.Error("guesses at one login from everywhere do not wait")
	}
	th.succeeded("anna")
	if wait("192.0.2.8:1", "anna") > 0 || wait("192.0.2.7:9", "anna") <= 0 {
		t.Error("a right password must free the login and not the address")
	}
	if addressOf("[2001:db8::1]:5") != addressOf("[2001:db8::ffff:2]:6") {
		t.Error("one subscriber's addresses are several")
	}
}
