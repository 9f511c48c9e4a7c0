// Package store is the vault: the long-lived centralka.db, the day folders with
// their call records and recordings, the retention index and the sweep that
// drops whole days.
package store
