package web

// staffRoutes is the table of everything that the console answers.
func staffRoutes() []route {
	return []route{
		{"GET", "/static/{file}", mayAnybody, quiet, (*Staff).styleSheet},
		{"GET", "/logowanie", mayAnybody, page, (*Staff).loginPage},
		{"POST", "/logowanie", mayAnybody, page, (*Staff).login},
		{"GET", "/logowanie/haslo", mayHalfway, page, (*Staff).newPasswordPage},
		{"POST", "/logowanie/haslo", mayHalfway, page, (*Staff).newPassword},
		{"GET", "/logowanie/rejestracja", mayHalfway, page, (*Staff).enrolPage},
		{"POST", "/logowanie/rejestracja", mayHalfway, page, (*Staff).code},
		{"GET", "/logowanie/kod", mayHalfway, page, (*Staff).codePage},
		{"POST", "/logowanie/kod", mayHalfway, page, (*Staff).code},
		{"POST", "/wylogowanie", mayAnybody, page, (*Staff).logout},

		{"GET", "/{$}", maySigned, page, (*Staff).startPage},
		{"GET", "/konto", maySigned, page, (*Staff).accountPage},
		{"POST", "/konto/haslo", maySigned, page, (*Staff).changePassword},
		{"POST", "/konto/sesje/{id}", maySigned, page, (*Staff).endOwnSession},

		{"GET", "/dziennik", mayReadAudit, page, (*Staff).auditPage},
		{"GET", "/dziennik.csv", mayReadAudit, page, (*Staff).auditFile},
		{"GET", "/dziennik/weryfikacja", mayReadAudit, page, (*Staff).verifyPage},
		{"POST", "/dziennik/weryfikacja", mayReadAudit, page, (*Staff).verify},

		{"GET", "/godziny", maySetHours, page, (*Staff).hoursPage},
		{"POST", "/godziny/zamkniecia", maySetHours, page, (*Staff).addClosure},
		{"POST", "/godziny/zamkniecia/{id}/usuniecie", maySetHours, page, (*Staff).removeClosure},
		{"POST", "/godziny/sterowanie", maySetHours, page, (*Staff).setOverride},
		{"POST", "/godziny/sterowanie/koniec", maySetHours, page, (*Staff).clearOverride},

		{"GET", "/oddzwonienia", mayCallBack, page, (*Staff).callbacksPage},
		{"POST", "/oddzwonienia/{day}/{id}", mayCallBack, page, (*Staff).markCallback},

		{"GET", "/nadzor/wyznaczenia", mayDecide, page, (*Staff).designationsPage},
		{"POST", "/nadzor/wyznaczenia", mayDecide, page, (*Staff).designate},
		{"POST", "/nadzor/wyznaczenia/{id}/odwolanie", mayDecide, page, (*Staff).revoke},
		{"POST", "/nadzor/zawieszenia", mayDecide, page, (*Staff).suspend},

		{"GET", "/admin/uzytkownicy", mayAdminister, page, (*Staff).usersPage},
		{"GET", "/admin/uzytkownicy/nowy", mayAdminister, page, (*Staff).newUserPage},
		{"POST", "/admin/uzytkownicy/nowy", mayAdminister, page, (*Staff).addUser},
		{"GET", "/admin/uzytkownicy/{id}", mayAdminister, page, (*Staff).userPage},
		{"POST", "/admin/uzytkownicy/{id}", mayAdminister, page, (*Staff).changeUser},
		{"POST", "/admin/uzytkownicy/{id}/haslo", mayAdminister, page, (*Staff).resetUser},
		{"POST", "/admin/uzytkownicy/{id}/stan", mayAdminister, page, (*Staff).disableUser},
		{"GET", "/admin/jednostki", mayAdminister, page, (*Staff).unitsPage},
		{"POST", "/admin/jednostki", mayAdminister, page, (*Staff).addUnit},
		{"POST", "/admin/jednostki/{id}", mayAdminister, page, (*Staff).changeUnit},
		{"GET", "/admin/drabinki", mayAdminister, page, (*Staff).laddersPage},
		{"GET", "/admin/drabinki/{day}/{id}", mayAdminister, page, (*Staff).ladderPage},
		{"GET", "/admin/telefony", mayAdminister, page, (*Staff).phonesPage},
		{"GET", "/admin/lacza", mayAdminister, page, (*Staff).trunksPage},
		{"GET", "/admin/kolejki", mayAdminister, page, (*Staff).queuesPage},
		{"GET", "/admin/komunikaty", mayAdminister, page, (*Staff).textsPage},
	}
}

// menu is what the pages' navigation leads to, for those who may.
var menu = []struct {
	path, key string
	may       permission
}{
	{"/", "title.start", maySigned},
	{"/oddzwonienia", "title.callbacks", mayCallBack},
	{"/godziny", "title.hours", maySetHours},
	{"/nadzor/wyznaczenia", "title.designations", mayDecide},
	{"/dziennik", "title.audit", mayReadAudit},
	{"/admin/drabinki", "title.ladders", mayAdminister},
	{"/admin/uzytkownicy", "title.users", mayAdminister},
	{"/admin/jednostki", "title.units", mayAdminister},
	{"/admin/telefony", "title.phones", mayAdminister},
	{"/admin/lacza", "title.trunks", mayAdminister},
	{"/admin/kolejki", "title.queues", mayAdminister},
	{"/admin/komunikaty", "title.texts", mayAdminister},
}
