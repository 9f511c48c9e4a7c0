// Package centralka has no code of its own: it is the root of the repository,
// and its tests are the repository's own rules. They guarantee that rooms
// import only what they may, that what comments cite stands in the ledgers of
// docs/, that ledger rows name code and tests that exist, and that links,
// names and dependencies are in order.
//
// The program is in cmd/centralka; docs/architecture.md shows the rooms.
package centralka
