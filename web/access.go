package web

import (
	"slices"

	"centralka/store"
)

// permission is what a route needs: a row of the matrix of roles and actions,
// or one of the first three.
type permission string

const (
	mayAnybody permission = "anybody" // whoever reaches the door: logging in, style sheets
	mayHalfway permission = "halfway" // whoever has given a password and not yet a code
	maySigned  permission = "signed-in"

	mayAnswer     permission = "answer"     // answer calls and chats, wrap-up tags
	mayWatch      permission = "watch"      // live panel
	maySetHours   permission = "hours"      // hours, closures, override
	mayCallBack   permission = "call-back"  // abandoned callers
	maySeeStatus  permission = "status"     // status page, which has a door of its own
	maySearch     permission = "search"     // metadata of the archive
	mayOpen       permission = "open"       // content, with a purpose
	mayExport     permission = "export"     // content for an authority
	mayRegister   permission = "register"   // applications, links, letters
	mayOpine      permission = "opine"      // opinion 1 and 2
	mayDecide     permission = "decide"     // decide, appoint, designate, suspend
	mayConduct    permission = "conduct"    // a hearing
	mayReadAudit  permission = "audit"      // audit log
	mayRetention  permission = "retention"  // calendar of deletion, guard
	mayStatistics permission = "statistics" // totals
	mayAdminister permission = "administer" // users, trunks, phones, texts, backup
)

// right is what a role may do of an action; no right is none of it.
type right string

const (
	rightAll        right = "all"
	rightOwn        right = "own" // own current call, own accesses, own day
	rightOwnUnit    right = "own unit"
	rightTotals     right = "totals"
	rightOwnTotals  right = "own and totals"
	rightMetadata   right = "metadata"
	rightMatching   right = "matching" // metadata of what matches an application
	rightDesignated right = "if designated"
	rightRequest    right = "request"
	rightApprove    right = "approve"
	rightInformed   right = "informed"
	rightExecute    right = "execute"
	rightFirst      right = "opinion 1"
	rightSecond     right = "opinion 2"
	rightSecondBOI  right = "opinion 2 of BOI"
	rightView       right = "view"
	rightConfirm    right = "view and confirm"
)

// columns are the roles in the order of the matrix.
var columns = [...]store.Role{
	store.RoleAgent, store.RoleHead, store.RoleDesignated, store.RoleRegistrar, store.RoleDirector,
	store.RoleOfficer, store.RoleUnitHead, store.RoleAdministrator, store.RoleSecretary,
}

// matrix says which role may do what (Zarz. 284/17 §2, §3 and §5, and the readings of
// them). It is the only place that does.
var matrix = map[permission][len(columns)]right{
	// agent, head, designated, registrar, director, officer, unit head, administrator, secretary
	mayAnswer:     {rightOwn, rightAll, "", "", "", "", "", "", ""},
	mayWatch:      {rightOwnTotals, rightAll, "", "", rightAll, "", "", rightAll, ""},
	maySetHours:   {"", rightAll, "", "", "", "", "", rightAll, ""},
	mayCallBack:   {rightAll, rightAll, "", "", "", "", "", "", ""},
	maySeeStatus:  {"", rightAll, "", "", rightAll, "", "", rightAll, ""},
	maySearch:     {"", rightAll, rightAll, rightMatching, rightMetadata, "", "", rightAll, ""},
	mayOpen:       {"", rightAll, rightDesignated, "", rightDesignated, "", "", rightAll, ""},
	mayExport:     {"", rightRequest, "", "", rightApprove, rightInformed, "", rightExecute, ""},
	mayRegister:   {"", rightAll, rightAll, rightAll, rightAll, "", "", "", ""},
	mayOpine:      {"", "", "", "", rightSecondBOI, rightFirst, rightSecond, "", ""},
	mayDecide:     {"", "", "", "", rightAll, "", "", "", ""},
	mayConduct:    {"", rightDesignated, rightDesignated, "", "", "", "", "", ""},
	mayReadAudit:  {rightOwn, rightOwnUnit, rightOwn, rightOwn, rightAll, rightAll, "", rightAll, rightTotals},
	mayRetention:  {"", rightView, rightView, "", rightView, rightView, "", rightConfirm, rightTotals},
	mayStatistics: {rightOwn, rightAll, "", "", rightAll, "", "", rightAll, rightAll},
	mayAdminister: {"", "", "", "", "", "", "", rightAll, ""},
}

// rightsOf are what an account may do of an action by all of its roles; none:
// it may not.
func rightsOf(a store.Account, p permission) (list []right) {
	row := matrix[p]
	for i, role := range columns {
		if r := row[i]; r != "" && a.Has(role) && !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

// may tells whether an account may do any of it. Who is signed in may do what
// everybody who is signed in may.
func may(a store.Account, p permission) bool {
	return p == mayAnybody || p == maySigned || len(rightsOf(a, p)) > 0
}
