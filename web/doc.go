// Package web is everything that the program serves over HTTP, at three doors
// that do not serve each other's pages: the status endpoint for administrators
// (a page that refreshes itself, the same as JSON, Prometheus metrics, the two
// probes), the console of the staff, and the residents' pages.
//
// The status endpoint holds no telephone number and no name of a person;
// extensions, trunks and queues are the office's own and are named. The console
// answers only what stands in its table of routes, to whom the matrix of roles
// lets; what it refuses is in the audit log. Pages carry no script and ask
// nothing of other hosts. The package starts no goroutine.
package web
