package store

import (
	"encoding/binary"
	"strings"

	"go.etcd.io/bbolt"
)

const (
	totalCause      = "cause/"
	totalRecordings = "recordings"
	totalBytes      = "bytes"
)

// addTotals counts a record in (+1) or out (-1).
func addTotals(tx *bbolt.Tx, rec *CallRecord, sign int64) error {
	b := tx.Bucket(bucketTotals)
	add := func(key string, n int64) error {
		n += int64(readCount(b.Get([]byte(key))))
		return b.Put([]byte(key), binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
	if err := add(totalCause+string(rec.Cause), sign); err != nil {
		return err
	}
	if rec.Recording.SHA256 == "" {
		return nil
	}
	if err := add(totalRecordings, sign); err != nil {
		return err
	}
	return add(totalBytes, sign*rec.Recording.Size)
}

func readTotals(tx *bbolt.Tx) totals {
	t := totals{causes: make(map[Cause]int)}
	c := tx.Bucket(bucketTotals).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		n := readCount(v)
		if cause, ok := strings.CutPrefix(string(k), totalCause); ok && n != 0 {
			t.causes[Cause(cause)] = int(n)
		}
	}
	b := tx.Bucket(bucketTotals)
	t.recordings = int(readCount(b.Get([]byte(totalRecordings))))
	t.bytes = int64(readCount(b.Get([]byte(totalBytes))))
	return t
}

func readCount(v []byte) uint64 {
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}
