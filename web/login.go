package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"centralka/store"
)

// cookieName is that of the session's cookie. The prefix binds it to this host
// over TLS; without TLS, on loopback, browsers do not take it.
func (s *Staff) cookieName() string {
	if s.cfg.Secure {
		return "__Host-centralka"
	}
	return "centralka"
}

// setCookie gives the browser a token, or takes it away. It has no end of its
// own: it goes with the browser, and the session ends by itself.
func (s *Staff) setCookie(w http.ResponseWriter, token string) {
	c := &http.Cookie{Name: s.cookieName(), Value: token, Path: "/", HttpOnly: true, Secure: s.cfg.Secure, SameSite: http.SameSiteLaxMode}
	if token == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// formToken is the token that forms of a session carry: another site cannot
// know it, and it tells nothing of the session's own.
func formToken(token string) string {
	h := hmac.New(sha256.New, []byte(token))
	h.Write([]byte("form"))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

const tokenField = "token"

func (s *Staff) hasToken(x *exchange) bool {
	return hmac.Equal([]byte(formToken(x.token)), []byte(x.r.PostFormValue(tokenField)))
}

// loginView is the page's own part on all pages of logging in.
type loginView struct {
	*Form
	Next   string
	Secret string // to enrol
	URI    string
	Groups []string // the secret in groups of four
}

// nextOf is the page that somebody wanted before logging in: one of ours, or
// the start.
func nextOf(r *http.Request) string {
	next := r.FormValue("dalej")
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

func withNext(path, next string) string {
	if next == "/" {
		return path
	}
	return path + "?dalej=" + url.QueryEscape(next)
}

func (s *Staff) loginPage(x *exchange) error {
	if x.session.Stage == store.StageFull {
		x.redirect("/")
		return nil
	}
	return s.show(x, "login", loginView{Form: emptyForm(), Next: nextOf(x.r)})
}

// login takes the password. A right one begins half a session; a wrong one costs
// time.
func (s *Staff) login(x *exchange) error {
	f, err := x.readForm()
	if err != nil {
		return err
	}
	v := loginView{Form: f, Next: nextOf(x.r)}
	login := strings.ToLower(f.Get("login"))
	guess, must := s.mustWait(x, login)
	if must {
		f.fault("login", "fault.wait")
		return s.showStatus(x, http.StatusTooManyRequests, "login", v)
	}
	a, err := s.cfg.Store.CheckPassword(login, f.values.Get("password"))
	if errors.Is(err, store.ErrCredentials) {
		f.fault("login", "fault.credentials")
		return s.showStatus(x, http.StatusUnprocessableEntity, "login", v)
	}
	guess.takeBack()
	if err != nil {
		return err
	}
	token, _, err := s.cfg.Store.BeginSession(a.ID, store.StagePassword)
	if err != nil {
		return err
	}
	s.setCookie(x.w, token)
	return s.goOn(x, a.ID, v.Next)
}

// mustWait begins a guess, or tells the browser how long to wait before one.
func (s *Staff) mustWait(x *exchange, login string) (guess, bool) {
	g, wait := s.throttle.begin(x.r.RemoteAddr, login)
	if wait <= 0 {
		return g, false
	}
	x.w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	return g, true
}

// goOn leads to what is still to be done before the session is whole.
func (s *Staff) goOn(x *exchange, account store.ID, next string) error {
	st, err := s.cfg.Store.Standing(account)
	if err != nil {
		return err
	}
	to := "/logowanie/kod"
	if st.MustChange {
		to = "/logowanie/haslo"
	} else if !st.Enrolled {
		to = "/logowanie/rejestracja"
	}
	x.redirect(withNext(to, next))
	return nil
}

// arrived leads on from a page that the account has no business with any more.
func (s *Staff) arrived(x *exchange, want func(store.Standing) bool) (bool, error) {
	st, err := s.cfg.Store.Standing(x.account.ID)
	if err != nil || want(st) {
		return false, err
	}
	return true, s.goOn(x, x.account.ID, nextOf(x.r))
}

func (s *Staff) newPasswordPage(x *exchange) error {
	if gone, err := s.arrived(x, func(st store.Standing) bool { return st.MustChange }); gone || err != nil {
		return err
	}
	return s.show(x, "newpassword", loginView{Form: emptyForm(), Next: nextOf(x.r)})
}

func (s *Staff) newPassword(x *exchange) error {
	if gone, err := s.arrived(x, func(st store.Standing) bool { return st.MustChange }); gone || err != nil {
		return err
	}
	f, err := x.readForm()
	if err != nil {
		return err
	}
	if err := s.setPassword(x, f); err != nil {
		return err
	}
	if len(f.Faults) > 0 {
		return s.showStatus(x, http.StatusUnprocessableEntity, "newpassword", loginView{Form: f, Next: nextOf(x.r)})
	}
	return s.goOn(x, x.account.ID, nextOf(x.r))
}

// setPassword takes a new password, given twice; what is wrong with it is among
// the form's faults.
func (s *Staff) setPassword(x *exchange, f *Form) error {
	password := f.values.Get("password")
	if password != f.values.Get("again") {
		f.fault("again", "fault.not_the_same")
		return nil
	}
	same, err := s.cfg.Store.IsPassword(x.account.ID, password)
	if err != nil {
		return err
	}
	if same {
		f.fault("password", "fault.as_before")
		return nil
	}
	if err := s.cfg.Store.ChangePassword(x.account.ID, password, x.session.ID); err != nil && !f.took(err) {
		return err
	}
	return nil
}

// enrolPage shows the secret of the second factor, as text and as the address
// that authenticator apps open.
func (s *Staff) enrolPage(x *exchange) error { return s.showEnrol(x, http.StatusOK, emptyForm()) }

func (s *Staff) showEnrol(x *exchange, status int, f *Form) error {
	if gone, err := s.arrived(x, func(st store.Standing) bool { return !st.MustChange && !st.Enrolled }); gone || err != nil {
		return err
	}
	secret, err := s.cfg.Store.OfferSecret(x.account.ID)
	if err != nil {
		return err
	}
	label := "centralka:" + x.account.Login
	v := loginView{Form: f, Next: nextOf(x.r), Secret: secret}
	v.URI = "otpauth://totp/" + url.PathEscape(label) + "?secret=" + secret + "&issuer=centralka"
	for rest := secret; len(rest) >= 4; rest = rest[4:] {
		v.Groups = append(v.Groups, rest[:4])
	}
	return s.showStatus(x, status, "enrol", v)
}

func (s *Staff) codePage(x *exchange) error {
	if gone, err := s.arrived(x, func(st store.Standing) bool { return !st.MustChange && st.Enrolled }); gone || err != nil {
		return err
	}
	return s.show(x, "code", loginView{Form: emptyForm(), Next: nextOf(x.r)})
}

// code takes a code of the second factor. With it the session is whole, under a
// token of its own.
func (s *Staff) code(x *exchange) error {
	st, err := s.cfg.Store.Standing(x.account.ID)
	if err != nil {
		return err
	}
	if st.MustChange {
		return s.goOn(x, x.account.ID, nextOf(x.r))
	}
	f, err := x.readForm()
	if err != nil {
		return err
	}
	again := func(status int, key string) error {
		f.fault("code", key)
		if st.Enrolled {
			return s.showStatus(x, status, "code", loginView{Form: f, Next: nextOf(x.r)})
		}
		return s.showEnrol(x, status, f)
	}
	guess, must := s.mustWait(x, x.account.Login)
	if must {
		return again(http.StatusTooManyRequests, "fault.wait")
	}
	err = s.cfg.Store.CheckCode(x.account.ID, f.Get("code"))
	if errors.Is(err, store.ErrCredentials) {
		return again(http.StatusUnprocessableEntity, "fault.code")
	}
	guess.takeBack()
	if err != nil {
		return err
	}
	s.throttle.succeeded(x.account.Login)
	token, _, err := s.cfg.Store.BeginSession(x.account.ID, store.StageFull)
	if err != nil {
		return err
	}
	s.setCookie(x.w, token)
	x.redirect(nextOf(x.r))
	return nil
}

func (s *Staff) logout(x *exchange) error {
	if !x.session.ID.IsZero() {
		if err := s.cfg.Store.EndSession(x.session.ID, x.account.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	s.setCookie(x.w, "")
	x.redirect("/logowanie?stan=wylogowano")
	return nil
}

func (s *Staff) styleSheet(x *exchange) error {
	s.static(x.w, x.r)
	return nil
}
