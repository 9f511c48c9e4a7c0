// Package ordinance is the law as code: Zarządzenie Nr 284/17 Prezydenta
// Miasta Szczecin of 27 June 2017. It holds the exact texts, the recorded
// announcement, the six-month rule, the calendar and the notion of a caller
// whose number is identifiable. Everything in it is a pure function or a
// constant; it opens no file and starts no goroutine.
package ordinance
