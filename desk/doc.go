// Package desk is the people who answer and the hours in which they do: one
// pool of agents for all queues and, later, for chats, and opening hours in
// Warsaw time.
//
// The pool has all who wait in one line and all who answer, and ends every change
// by giving ready agents to whoever is first for them. It guarantees that nobody
// is stuck and nobody is passed over for longer than Patience: each reservation carries a deadline
// at which it falls back by itself, and whether an agent is busy is counted from
// the switch's own dialogs. Pool and Hours are safe for concurrent use and
// start no goroutine; a reservation's deadline, the pause after a refusal and a
// wrap-up's end are timers.
package desk
