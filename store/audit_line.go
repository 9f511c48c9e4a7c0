package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"centralka/ordinance"
)

// Action is what was done or tried. The list is closed: an event of another
// action is refused.
type Action string

const (
	ActionLogin              Action = "login"
	ActionLogout             Action = "logout"
	ActionSecondFactorSet    Action = "second_factor_set"
	ActionPasswordChanged    Action = "password_changed"
	ActionSessionEnded       Action = "session_ended" // by someone, not by its holder's logout
	ActionPageOpened         Action = "page_opened"   // of pages only what was refused is noted
	ActionAccountAdded       Action = "account_added"
	ActionAccountChanged     Action = "account_changed"
	ActionAccountReset       Action = "account_reset" // password and second factor anew
	ActionAccountDisabled    Action = "account_disabled"
	ActionAccountEnabled     Action = "account_enabled"
	ActionDesignated         Action = "designated"
	ActionDesignationRevoked Action = "designation_revoked"
	ActionAccessSuspended    Action = "access_suspended"
	ActionAccessRestored     Action = "access_restored"
	ActionAuditVerified      Action = "audit_verified"
	ActionUnitChanged        Action = "unit_changed"
	ActionUnitRemoved        Action = "unit_removed"
	ActionClosureAdded       Action = "closure_added"
	ActionClosureRemoved     Action = "closure_removed"
	ActionOverrideOpened     Action = "override_opened"
	ActionOverrideClosed     Action = "override_closed"
	ActionOverrideCleared    Action = "override_cleared"
	ActionCallbacksListed    Action = "callbacks_listed" // abandoned callers, with their numbers
	ActionCallbackMarked     Action = "callback_marked"
	ActionCallbackUnmarked   Action = "callback_unmarked"
	ActionLadderOpened       Action = "ladder_opened"
	ActionDeletionBegun      Action = "deletion_begun" // „do usunięcia" (S6-g), of an item and of a day
	ActionDeleted            Action = "deleted"        // „usunięto": its absence was verified
	ActionClockConfirmed     Action = "clock_confirmed"
)

// Actions lists every action, for filters and their words.
func Actions() []Action { return slices.Clone(actions) }

var actions = []Action{
	ActionLogin, ActionLogout, ActionSecondFactorSet, ActionPasswordChanged, ActionSessionEnded, ActionPageOpened,
	ActionAccountAdded, ActionAccountChanged, ActionAccountReset, ActionAccountDisabled, ActionAccountEnabled,
	ActionDesignated, ActionDesignationRevoked, ActionAccessSuspended, ActionAccessRestored, ActionAuditVerified,
	ActionUnitChanged, ActionUnitRemoved, ActionClosureAdded, ActionClosureRemoved, ActionOverrideOpened, ActionOverrideClosed, ActionOverrideCleared,
	ActionCallbacksListed, ActionCallbackMarked, ActionCallbackUnmarked, ActionLadderOpened,
	ActionDeletionBegun, ActionDeleted, ActionClockConfirmed,
}

// Purpose is why content is opened (S1.2-a).
type Purpose string

const (
	PurposeQuality        Purpose = "quality"        // (1) quality of service
	PurposeDisclosure     Purpose = "disclosure"     // (2) a case of disclosure
	PurposeAdministration Purpose = "administration" // (3) administration of the system
	PurposeAuthority      Purpose = "authority"      // (4) demand of an authority
)

var purposes = []Purpose{PurposeQuality, PurposeDisclosure, PurposeAdministration, PurposeAuthority}

// AuditOutcome tells whether it was let happen.
type AuditOutcome string

const (
	Allowed AuditOutcome = "allowed"
	Denied  AuditOutcome = "denied" // „odmowa" (S0-d)
)

// AuditObject is what something was done to. It is made by the functions below,
// none of which takes a free text.
type AuditObject struct{ kind, ref string }

// Kinds of objects that have an id.
const (
	ObjectAccount     = "account"
	ObjectSession     = "session"
	ObjectDesignation = "designation"
	ObjectCall        = "call"
	ObjectChat        = "chat"
	ObjectCase        = "case"
	ObjectUnit        = "unit"
	ObjectClosure     = "closure"
	objectRoute       = "route"
	objectDay         = "day"
)

var objectKinds = []string{ObjectAccount, ObjectSession, ObjectDesignation, ObjectCall, ObjectChat, ObjectCase, ObjectUnit, ObjectClosure}

// ObjectOf is a thing with an id, of one of the kinds above.
func ObjectOf(kind string, id ID) AuditObject { return AuditObject{kind, id.String()} }

// RouteObject is a page by the method and pattern under which it is registered:
// "GET /dziennik". What a client asked for is not in a pattern.
func RouteObject(pattern string) AuditObject {
	return AuditObject{objectRoute, strings.ReplaceAll(pattern, " ", "_")}
}

// DayObject is a day of the vault.
func DayObject(day ordinance.Day) AuditObject { return AuditObject{objectDay, day.String()} }

// Kind and Ref are its parts: "account" and an id, "route" and a pattern.
func (o AuditObject) Kind() string { return o.kind }
func (o AuditObject) Ref() string  { return o.ref }

// ID returns the id, if it is of a kind that has one.
func (o AuditObject) ID() (ID, bool) {
	if !slices.Contains(objectKinds, o.kind) {
		return ID{}, false
	}
	id, err := ParseID(o.ref)
	return id, err == nil
}

func (o AuditObject) String() string {
	if o == (AuditObject{}) {
		return "-"
	}
	return o.kind + ":" + o.ref
}

var (
	routeRef = regexp.MustCompile(`^[A-Z]+_/[a-z/{}.$_-]*$`) // no digit: no number of anybody's
	wordForm = regexp.MustCompile(`^[a-z][a-z_-]{0,39}$`)
)

func (o AuditObject) check() error {
	if o == (AuditObject{}) {
		return nil
	}
	switch _, hasID := o.ID(); {
	case hasID:
		return nil
	case o.kind == objectRoute && routeRef.MatchString(o.ref):
		return nil
	case o.kind == objectDay:
		_, err := ordinance.ParseDay(o.ref)
		return err
	}
	return fmt.Errorf("an object of kind %q cannot be this", o.kind)
}

// AuditDetail is one more fact about an event: a key of a fixed list and a value
// that is an id, a day, an instant, a count, a hash or a word of a fixed list.
type AuditDetail struct{ key, value string }

// auditWord is a value of one of this package's lists.
type auditWord interface{ auditWord() string }

// DetailID, and the functions below, make details. The key is a word.
func DetailID(key string, id ID) AuditDetail { return AuditDetail{key, id.String()} }

// DetailDay is a day.
func DetailDay(key string, d ordinance.Day) AuditDetail { return AuditDetail{key, d.String()} }

// DetailTime is an instant.
func DetailTime(key string, t time.Time) AuditDetail {
	return AuditDetail{key, utc(t).Format(time.RFC3339Nano)}
}

// DetailDigest is a hash.
func DetailDigest(key string, d Digest) AuditDetail { return AuditDetail{key, d.String()} }

// DetailWord is a value of a list of this package's: a role, a scope.
func DetailWord(key string, w auditWord) AuditDetail { return AuditDetail{key, w.auditWord()} }

// maxCount keeps telephone numbers from passing for counts: they have nine
// digits or more.
const maxCount = 99_999_999

// DetailCount is a count or a length in milliseconds, at most eight digits.
func DetailCount(key string, n int) AuditDetail { return AuditDetail{key, strconv.Itoa(n)} }

// Key and Value are its parts.
func (d AuditDetail) Key() string   { return d.key }
func (d AuditDetail) Value() string { return d.value }

func (d AuditDetail) check() error {
	if !wordForm.MatchString(d.key) {
		return fmt.Errorf("key %q of a detail is no word", d.key)
	}
	if n, err := strconv.ParseInt(d.value, 10, 64); err == nil && (n < 0 || n > maxCount) {
		return fmt.Errorf("%s: not a count", d.key)
	}
	if d.value == "" || strings.ContainsAny(d.value, " \t\n=") {
		return fmt.Errorf("%s: no value", d.key)
	}
	return nil
}

// check refuses what is not of the lists.
func (e AuditEvent) check() error {
	if !slices.Contains(actions, e.Action) {
		return errors.New("no such action")
	}
	if e.Outcome != Allowed && e.Outcome != Denied {
		return errors.New("neither allowed nor denied")
	}
	if e.Purpose != "" && !slices.Contains(purposes, e.Purpose) {
		return errors.New("no such purpose")
	}
	if err := e.Object.check(); err != nil {
		return err
	}
	for _, d := range e.Details {
		if err := d.check(); err != nil {
			return err
		}
	}
	return nil
}

const auditVersion = "1"

// line is the canonical encoding; see AuditEvent.
func (e AuditEvent) line() []byte {
	orDash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	actor := ""
	if !e.Actor.IsZero() {
		actor = e.Actor.String()
	}
	details := make([]string, 0, len(e.Details))
	for _, d := range e.Details {
		details = append(details, d.key+"="+d.value)
	}
	slices.Sort(details)
	return []byte(strings.Join([]string{
		auditVersion, strconv.FormatUint(e.Seq, 10), e.At.Format(time.RFC3339Nano), orDash(actor), string(e.Action), e.Object.String(),
		orDash(string(e.Purpose)), string(e.Outcome), orDash(strings.Join(details, " ")), e.Prev.String(),
	}, "\t"))
}

// parseAudit reads a line. Only the encoding of an event that may be appended is
// accepted, so that two lines never mean the same.
func parseAudit(line []byte) (e AuditEvent, err error) {
	f := strings.Split(string(line), "\t")
	if len(f) != 10 || f[0] != auditVersion {
		return e, errors.New("not a line of the log")
	}
	blank := func(s string) string {
		if s == "-" {
			return ""
		}
		return s
	}
	if e.Seq, err = strconv.ParseUint(f[1], 10, 64); err != nil {
		return e, errors.New("no number")
	}
	if e.At, err = time.Parse(time.RFC3339Nano, f[2]); err != nil {
		return e, errors.New("no instant")
	}
	if s := blank(f[3]); s != "" {
		if e.Actor, err = ParseID(s); err != nil {
			return e, errors.New("no actor")
		}
	}
	e.Action, e.Purpose, e.Outcome = Action(f[4]), Purpose(blank(f[6])), AuditOutcome(f[7])
	if s := blank(f[5]); s != "" {
		e.Object.kind, e.Object.ref, _ = strings.Cut(s, ":")
	}
	for pair := range strings.FieldsSeq(blank(f[8])) {
		key, value, _ := strings.Cut(pair, "=")
		e.Details = append(e.Details, AuditDetail{key, value})
	}
	if err := e.Prev.UnmarshalText([]byte(f[9])); err != nil {
		return e, errors.New("no hash of the entry before")
	}
	if !bytes.Equal(e.line(), line) {
		return e, errors.New("not in the canonical form")
	}
	e.Hash = sha256.Sum256(line)
	return e, e.check()
}

// Line is the entry as it is kept and hashed, for export.
func (e AuditEvent) Line() string { return string(e.line()) }

func contains(ids []ID, id ID) bool { return slices.Contains(ids, id) }
