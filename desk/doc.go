// Package desk is the people who answer and the hours in which they do: one
// pool of agents for all queues and, later, for chats, and opening hours in
// Warsaw time.
//
// The pool guarantees that nobody is stuck: each reservation carries a deadline
// at which it falls back by itself, and whether an agent is busy is counted from
// the switch's own dialogs. Pool and Hours are safe for concurrent use and
// start no goroutine; a reservation's deadline and a wrap-up's end are timers.
package desk
