// Package web is everything that the program serves over HTTP. So far that is
// the status endpoint for administrators: a page that refreshes itself, the
// same as JSON, Prometheus metrics, and the two probes.
//
// Nothing that it serves holds a telephone number or the name of a person;
// extensions, trunks and queues are the office's own and are named. Pages carry
// no script and ask nothing of other hosts. The package starts no goroutine.
package web
