package web

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// auditList is a part of the audit log as a table shows it.
type auditList struct {
	Entries []auditEntry
	More    string // address of what is older; "" if nothing is
}

type auditEntry struct {
	store.AuditEvent
	Actor  string // name, "" if it was nobody
	Object string // kind and reference
	Name   string // of the object, if it is an account or a unit
}

// auditList reads a page of the log, with the names of accounts and units. path
// is where the next page is.
func (s *Staff) auditList(x *exchange, f store.AuditFilter, path string) (list auditList, err error) {
	if f.Before, err = x.before(); err != nil {
		return list, err
	}
	names, err := s.names()
	if err != nil {
		return list, err
	}
	for e, err := range s.cfg.Store.AuditLog(f) {
		if err != nil {
			return list, err
		}
		if len(list.Entries) == pageSize {
			q := x.r.URL.Query()
			q.Set("przed", fmt.Sprint(list.Entries[pageSize-1].Seq))
			q.Del("stan")
			list.More = path + "?" + q.Encode()
			break
		}
		list.Entries = append(list.Entries, names.entry(e))
	}
	return list, nil
}

// names are those of accounts and units, by id.
type names map[store.ID]string

func (s *Staff) names() (names, error) {
	accounts, err := s.cfg.Store.Accounts()
	if err != nil {
		return nil, err
	}
	units, err := s.cfg.Store.Units()
	if err != nil {
		return nil, err
	}
	n := names{}
	for _, a := range accounts {
		n[a.ID] = a.Name
	}
	for _, u := range units {
		n[u.ID] = u.Name
	}
	return n, nil
}

func (n names) entry(e store.AuditEvent) auditEntry {
	entry := auditEntry{AuditEvent: e, Actor: n[e.Actor], Object: e.Object.Ref()}
	if id, ok := e.Object.ID(); ok {
		entry.Name = n[id]
	}
	entry.Object = strings.Replace(entry.Object, "_", " ", 1)
	return entry
}

// auditView is /dziennik.
type auditView struct {
	*Form
	List    auditList
	Totals  []auditTotal // instead of the list, for who sees no more
	Scope   string       // key
	Actions []store.Action
	CSV     string
}

type auditTotal struct {
	Action          store.Action
	Allowed, Denied int
}

// auditScope is how much of the log the account may see: the widest of its
// rights, as a key of the words. Totals are of the whole log and show no entry, so
// that they never widen a list.
func (x *exchange) auditScope() string {
	switch {
	case x.can(rightAll):
		return "audit.all"
	case x.can(rightOwnUnit):
		return "audit.unit"
	case x.can(rightTotals):
		return "audit.totals"
	}
	return "audit.own"
}

// auditFilter is what was asked for, within what the account may see.
func (s *Staff) auditFilter(x *exchange) (f store.AuditFilter, fm *Form, err error) {
	q := x.r.URL.Query()
	fm = &Form{values: q}
	f.Action, f.Outcome = store.Action(q.Get("action")), store.AuditOutcome(q.Get("outcome"))
	for _, d := range []struct {
		name string
		day  *ordinance.Day
	}{{"from", &f.From}, {"to", &f.To}} {
		if text := q.Get(d.name); text != "" {
			if *d.day, err = ordinance.ParseDay(text); err != nil {
				fm.fault(d.name, "fault.not_a_day")
			}
		}
	}
	err = nil
	switch x.auditScope() {
	case "audit.all", "audit.totals":
	case "audit.unit":
		accounts, err := s.cfg.Store.Accounts()
		if err != nil {
			return f, fm, err
		}
		f.Actors = []store.ID{}
		for _, a := range accounts {
			if a.Unit == x.account.Unit {
				f.Actors = append(f.Actors, a.ID)
			}
		}
	default:
		f.Subject = x.account.ID
	}
	return f, fm, err
}

func (s *Staff) auditPage(x *exchange) error {
	f, fm, err := s.auditFilter(x)
	if err != nil {
		return err
	}
	v := auditView{Form: fm, Actions: store.Actions(), Scope: x.auditScope()}
	if len(fm.Faults) > 0 {
		return s.showStatus(x, http.StatusUnprocessableEntity, "audit", v)
	}
	if v.Scope == "audit.totals" {
		if v.Totals, err = s.auditTotals(f); err != nil {
			return err
		}
		return s.show(x, "audit", v)
	}
	q := x.r.URL.Query()
	q.Del("przed")
	v.CSV = "/dziennik.csv?" + q.Encode()
	if v.List, err = s.auditList(x, f, "/dziennik"); err != nil {
		return err
	}
	return s.show(x, "audit", v)
}

func (s *Staff) auditTotals(f store.AuditFilter) (list []auditTotal, err error) {
	counts := map[store.Action]*auditTotal{}
	for e, err := range s.cfg.Store.AuditLog(f) {
		if err != nil {
			return nil, err
		}
		c := counts[e.Action]
		if c == nil {
			c = &auditTotal{Action: e.Action}
			counts[e.Action] = c
		}
		if e.Outcome == store.Denied {
			c.Denied++
		} else {
			c.Allowed++
		}
	}
	for _, a := range store.Actions() {
		if c := counts[a]; c != nil {
			list = append(list, *c)
		}
	}
	return list, nil
}

// maxExported bounds a CSV file.
const maxExported = 100_000

// auditFile is the same as CSV; its last column is the line that is hashed.
func (s *Staff) auditFile(x *exchange) error {
	f, fm, err := s.auditFilter(x)
	if err != nil {
		return err
	}
	if len(fm.Faults) > 0 {
		return refusal{status: http.StatusBadRequest}
	}
	if x.auditScope() == "audit.totals" {
		return s.totalsFile(x, f)
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	head := []string{"seq", "at", "actor", "action", "object", "purpose", "outcome", "hash", "line"}
	rows := [][]string{head}
	for e, err := range s.cfg.Store.AuditLog(f) {
		if err != nil {
			return err
		}
		rows = append(rows, []string{fmt.Sprint(e.Seq), e.At.Format(time.RFC3339Nano), names[e.Actor], string(e.Action), e.Object.String(), string(e.Purpose), string(e.Outcome), e.Hash.String(), e.Line()})
		if len(rows) > maxExported {
			break
		}
	}
	return s.sendCSV(x, rows)
}

func (s *Staff) totalsFile(x *exchange, f store.AuditFilter) error {
	list, err := s.auditTotals(f)
	if err != nil {
		return err
	}
	rows := [][]string{{"action", "allowed", "denied"}}
	for _, t := range list {
		rows = append(rows, []string{string(t.Action), fmt.Sprint(t.Allowed), fmt.Sprint(t.Denied)})
	}
	return s.sendCSV(x, rows)
}

// sendCSV sends a table. A cell that a spreadsheet would take for a formula, such
// as a name somebody chose, is made text.
func (s *Staff) sendCSV(x *exchange, rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			if len(cell) > 1 && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				row[i] = "'" + cell
			}
		}
	}
	var b bytes.Buffer
	if err := csv.NewWriter(&b).WriteAll(rows); err != nil {
		return err
	}
	x.w.Header().Set("Content-Disposition", "attachment; filename="+url.PathEscape("dziennik.csv"))
	send(x.w, "text/csv; charset=utf-8", b.Bytes(), s.log)
	return nil
}

// verifyView is /dziennik/weryfikacja.
type verifyView struct {
	*Form
	Head  store.AuditHead
	Check *store.AuditCheck
	Took  time.Duration
}

func (s *Staff) verifyPage(x *exchange) error {
	head, err := s.cfg.Store.AuditHead()
	if err != nil {
		return err
	}
	return s.show(x, "verify", verifyView{Form: emptyForm(), Head: head})
}

// verify follows the chain. That it was asked for is an event itself.
func (s *Staff) verify(x *exchange) error {
	f, err := x.readForm()
	if err != nil {
		return err
	}
	v := verifyView{Form: f}
	var known []store.AuditHead
	if text := f.Get("head"); text != "" {
		h, err := store.ParseAuditHead(text)
		if err != nil {
			f.fault("head", "fault.not_a_head")
		}
		known = append(known, h)
	}
	if v.Head, err = s.cfg.Store.AuditHead(); err != nil {
		return err
	}
	if len(f.Faults) > 0 {
		return s.showStatus(x, http.StatusUnprocessableEntity, "verify", v)
	}
	began := time.Now()
	check, err := s.cfg.Store.VerifyAudit(x.r.Context(), known, nil)
	if err != nil {
		return err
	}
	v.Check, v.Took = &check, time.Since(began)
	if err := s.cfg.Store.Audit(store.AuditEvent{Actor: x.account.ID, Action: store.ActionAuditVerified, Outcome: store.Allowed, Details: []store.AuditDetail{store.DetailCount("entries", int(check.Events))}}); err != nil {
		return err
	}
	return s.show(x, "verify", v)
}
