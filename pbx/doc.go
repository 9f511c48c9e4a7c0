// Package pbx is the switch: a back-to-back user agent between carriers'
// trunks and desk phones. It terminates every SIP dialog itself, plays the
// statutory announcement to each incoming caller, queues and bridges calls,
// and hands the voice of calls that cross a trunk to the recorder.
//
// sipgo supplies parser, transports and transactions (RFC 3261 §17, RFC 6026);
// everything above them is here: validation, dialogs (RFC 3261 §12), registrar
// (RFC 3261 §10), digest (RFC 7616), offer/answer (RFC 3264), session timers
// (RFC 4028), reliable provisional responses (RFC 3262), the location of trunks'
// servers and failover between them (RFC 3263).
//
// # Guarantees
//
// No agent rings and nothing is recorded before the caller has heard the
// announcement to its last frame: the proof is a value of type announced,
// which only announcement.go makes (Zarz. 284/17 §1 ust. 4). Every call ends
// with exactly one Cause and one recording outcome. Emergency numbers are
// resolved before any rule and never refused.
//
// # Goroutines
//
// One goroutine owns each call and everything in it: legs, dialogs, timers,
// the call record. Messages, timers and media events reach it as small
// structs through its mailbox, which never blocks a sender. One goroutine owns
// each queue. The clerk writes call records in order so that no call waits for
// the disk. The endpoint has a reader per listener and a short-lived goroutine
// per client transaction; the keeper of each trunk and the registrar have one.
// Run waits for all of them.
package pbx
