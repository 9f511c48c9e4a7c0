package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// AuditEvent is one entry of the audit log: who did what to which thing, for
// which purpose, and whether it was allowed. It is made of ids, words of fixed
// lists, days, instants and counts; there is no field that takes a text, so a
// citizen's number or name has no place to go.
//
// # The log
//
// Entries are numbered from 1 and never changed. What is kept of each is one line
// of text, from which everything else is read:
//
//	1 TAB seq TAB instant TAB actor TAB action TAB object TAB purpose TAB outcome TAB details TAB previous
//
// 1 is the version of this form. The instant is UTC in RFC 3339 with
// nanoseconds; an actor is the account's id, "-" for the program itself and for
// who is not logged in; the object is kind, colon, reference, or "-"; details are
// key=value in the order of the keys, separated by a space, or "-". previous is
// the SHA-256 of the line before in hexadecimal digits, 64 zeros in line 1. The
// hash of an entry is the SHA-256 of its line, without an end of line: so an
// exported log can be followed with sha256sum alone.
//
// # What tampering shows
//
// Verify finds a changed, removed, inserted or moved entry. An entry taken off
// the end is found by the head (number and hash of the newest entry), which is
// kept apart from the entries. Whoever rewrites both, and every hash from there
// on, is found by a head that was written down elsewhere: it is logged every
// day and printed on the day's protocol.
type AuditEvent struct {
	Seq     uint64    // given by the store
	At      time.Time // given by the store
	Actor   ID        // account; zero: the program, or nobody who is logged in
	Action  Action
	Object  AuditObject
	Purpose Purpose // of an access to content
	Outcome AuditOutcome
	Details []AuditDetail
	Prev    Digest // of the entry before, given by the store
	Hash    Digest // of this entry, given by the store
}

// Digest is a SHA-256, or a keyed hash of that length.
type Digest [sha256.Size]byte

func (d Digest) String() string               { return hex.EncodeToString(d[:]) }
func (d Digest) IsZero() bool                 { return d == Digest{} }
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 2*len(d) {
		return fmt.Errorf("%q is not a hash of %d hexadecimal digits", b, 2*len(d))
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// AuditHead is the newest entry of the log: what proves that nothing was taken
// off its end.
type AuditHead struct {
	Seq  uint64
	Hash Digest
}

// String writes the head as it is logged and printed: "1240:9f86…".
func (h AuditHead) String() string { return fmt.Sprintf("%d:%v", h.Seq, h.Hash) }

// ParseAuditHead reads what String writes.
func ParseAuditHead(s string) (h AuditHead, err error) {
	var hash string
	if _, err := fmt.Sscanf(s, "%d:%s", &h.Seq, &hash); err != nil || h.Seq == 0 {
		return AuditHead{}, fmt.Errorf("%q is not NUMBER:SHA256", s)
	}
	if err := h.Hash.UnmarshalText([]byte(hash)); err != nil {
		return AuditHead{}, err
	}
	return h, nil
}

var keyAuditHead = []byte("audit head")

// Audit appends an event and returns when it is durable. What changes
// centralka.db appends its event in the same transaction instead.
func (s *Store) Audit(e AuditEvent) error {
	return s.central.update(func(tx *bbolt.Tx) error { return appendAudit(tx, e) })
}

// appendAudit puts an event at the end of the log. The chain goes on from the
// head, not from what stands last among the entries: if these were cut, the gap
// stays to be seen.
func appendAudit(tx *bbolt.Tx, e AuditEvent) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("audit %s: %w", e.Action, err)
	}
	head, err := auditHead(tx)
	if err != nil {
		return err
	}
	e.Seq, e.At, e.Prev = head.Seq+1, utc(time.Now()), head.Hash
	line := e.line()
	e.Hash = sha256.Sum256(line)
	if err := tx.Bucket(bucketAudit).Put(auditKey(e.Seq), line); err != nil {
		return err
	}
	for _, key := range e.indexed() {
		if err := tx.Bucket(bucketAuditBy).Put(key, nil); err != nil {
			return err
		}
	}
	return putJSON(tx.Bucket(bucketMarks), keyAuditHead, AuditHead{e.Seq, e.Hash})
}

func auditKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// indexed are the entry's keys in the index: its actor and its object, each
// followed by its number.
func (e AuditEvent) indexed() (keys [][]byte) {
	if !e.Actor.IsZero() {
		keys = append(keys, append(e.Actor[:], auditKey(e.Seq)...))
	}
	if id, ok := e.Object.ID(); ok && id != e.Actor {
		keys = append(keys, append(id[:], auditKey(e.Seq)...))
	}
	return keys
}

// auditHead reads the head; where it is lost, what stands last among the entries.
func auditHead(tx *bbolt.Tx) (h AuditHead, err error) {
	if text := tx.Bucket(bucketMarks).Get(keyAuditHead); text != nil {
		if err := getJSON(text, &h); err != nil {
			return h, fmt.Errorf("head of the audit log: %w", err)
		}
		return h, nil
	}
	if k, line := tx.Bucket(bucketAudit).Cursor().Last(); len(k) == 8 {
		h = AuditHead{binary.BigEndian.Uint64(k), sha256.Sum256(line)}
	}
	return h, nil
}

// AuditHead returns the newest entry's number and hash.
func (s *Store) AuditHead() (h AuditHead, err error) {
	err = s.central.view(func(tx *bbolt.Tx) error {
		h, err = auditHead(tx)
		return err
	})
	return h, err
}

// anchorAudit writes the head to the log of the program, which is kept
// elsewhere than the vault.
func (s *Store) anchorAudit() {
	h, err := s.AuditHead()
	if err != nil {
		s.log.Error("read the head of the audit log", "err", err)
		return
	}
	s.log.Info("head of the audit log", "head", h.String())
}

// AuditFilter selects entries; zero fields select everything.
type AuditFilter struct {
	Before  uint64 // entries with a lower number
	From    ordinance.Day
	To      ordinance.Day // inclusive
	Actors  []ID          // done by one of these
	Subject ID            // done by it or to it
	Action  Action
	Outcome AuditOutcome
}

// matches does not look at Before: that is where the walk begins.
func (f AuditFilter) matches(e AuditEvent) bool {
	day := ordinance.DayOf(e.At)
	return (f.From.IsZero() || day.Compare(f.From) >= 0) && (f.To.IsZero() || day.Compare(f.To) <= 0) &&
		(f.Actors == nil || contains(f.Actors, e.Actor)) &&
		(f.Action == "" || e.Action == f.Action) && (f.Outcome == "" || e.Outcome == f.Outcome)
}

// auditPage is how many entries one transaction reads: a reader who takes long
// must not hold one open.
const auditPage = 1024

// AuditLog yields the entries that f selects, newest first. It ends with the
// first error.
func (s *Store) AuditLog(f AuditFilter) iter.Seq2[AuditEvent, error] {
	return func(yield func(AuditEvent, error) bool) {
		for {
			page, read := make([]AuditEvent, 0, auditPage), 0
			err := s.central.view(func(tx *bbolt.Tx) error {
				seq := newestFirst(tx, f)
				for n, ok := seq(); ok && read < auditPage; n, ok = seq() {
					line := tx.Bucket(bucketAudit).Get(auditKey(n))
					e, err := parseAudit(line)
					if err != nil {
						return fmt.Errorf("entry %d of the audit log: %w", n, err)
					}
					page, read = append(page, e), read+1
				}
				return nil
			})
			for _, e := range page {
				f.Before = e.Seq
				if !f.From.IsZero() && ordinance.DayOf(e.At).Next(2).Compare(f.From) < 0 {
					return // entries are in the order of their instants but for a clock that was set
				}
				if f.matches(e) && !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(AuditEvent{}, err)
			}
			if err != nil || read < auditPage {
				return
			}
		}
	}
}

// newestFirst walks the numbers below f.Before, of all entries or of those of
// one subject. It is used within tx.
func newestFirst(tx *bbolt.Tx, f AuditFilter) func() (uint64, bool) {
	before := f.Before
	if before == 0 {
		before = 1<<64 - 1
	}
	bucket, prefix := bucketAudit, []byte(nil)
	if !f.Subject.IsZero() {
		bucket, prefix = bucketAuditBy, f.Subject[:]
	}
	c := tx.Bucket(bucket).Cursor()
	k, _ := c.Seek(append(append([]byte(nil), prefix...), auditKey(before)...))
	if k == nil { // all keys are lower
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	return func() (uint64, bool) {
		if len(k) != len(prefix)+8 || string(k[:len(prefix)]) != string(prefix) {
			return 0, false
		}
		seq := binary.BigEndian.Uint64(k[len(prefix):])
		k, _ = c.Prev()
		return seq, true
	}
}

// AuditCheck is the result of following the chain.
type AuditCheck struct {
	Events uint64 // entries that were read
	Head   AuditHead
	// Fault is the first bad place, in words; empty: the log is whole. It names
	// no one.
	Fault string
	At    uint64 // number of the entry at which it is
}

// VerifyAudit follows the chain from its beginning. known are heads that were
// written down elsewhere; the log must still hold them. The error is about the
// check itself; what is wrong with the log is in its result. progress, if not
// nil, is told now and then how many entries of how many are done.
func (s *Store) VerifyAudit(ctx context.Context, known []AuditHead, progress func(done, total int)) (AuditCheck, error) {
	head, err := s.AuditHead()
	if err != nil {
		return AuditCheck{}, err
	}
	v := auditVerifier{known: make(map[uint64]Digest)}
	for _, h := range known {
		if other, ok := v.known[h.Seq]; ok && other != h.Hash {
			return AuditCheck{}, fmt.Errorf("two heads of number %d that differ", h.Seq)
		}
		v.known[h.Seq] = h.Hash
	}
	for v.check.Fault == "" && v.check.Head.Seq < head.Seq {
		if err := ctx.Err(); err != nil {
			return v.check, err
		}
		before := v.check.Events
		err := s.central.view(func(tx *bbolt.Tx) error { return v.page(tx, head) })
		if err != nil {
			return v.check, fmt.Errorf("verify the audit log: %w", err)
		}
		if progress != nil {
			progress(int(v.check.Events), int(head.Seq))
		}
		if v.check.Events == before {
			break // no entry is left below the head
		}
	}
	v.finish(head)
	return v.check, nil
}

// auditVerifier is where a walk along the chain is.
type auditVerifier struct {
	check AuditCheck
	known map[uint64]Digest
}

func (v *auditVerifier) fault(at uint64, format string, args ...any) {
	if v.check.Fault == "" {
		v.check.At, v.check.Fault = at, fmt.Sprintf(format, args...)
	}
}

// page reads the next entries up to the head.
func (v *auditVerifier) page(tx *bbolt.Tx, head AuditHead) error {
	c := tx.Bucket(bucketAudit).Cursor()
	by := tx.Bucket(bucketAuditBy)
	n := 0
	for k, line := c.Seek(auditKey(v.check.Head.Seq + 1)); k != nil && n < auditPage && v.check.Fault == ""; k, line = c.Next() {
		n++
		want := v.check.Head.Seq + 1
		if len(k) != 8 {
			v.fault(want, "a key that is no number follows entry %d", v.check.Head.Seq)
			return nil
		}
		seq := binary.BigEndian.Uint64(k)
		if seq > head.Seq {
			return nil // appended since the walk began
		}
		v.check.Events++
		if seq != want {
			v.fault(want, "entry %d is missing, entry %d follows", want, seq)
			return nil
		}
		e, err := parseAudit(line)
		switch {
		case err != nil:
			v.fault(seq, "entry %d cannot be read: %v", seq, err)
		case e.Seq != seq:
			v.fault(seq, "entry %d stands where entry %d belongs", e.Seq, seq)
		case e.Prev != v.check.Head.Hash:
			v.fault(seq, "entry %d does not follow from the one before: one of the two was changed", seq)
		}
		if sum, ok := v.known[seq]; ok && sum != e.Hash {
			v.fault(seq, "entry %d is not the one whose hash was written down", seq)
		}
		for _, key := range e.indexed() {
			if !hasKey(by, key) {
				v.fault(seq, "entry %d is not in the index", seq)
			}
		}
		v.check.Head = AuditHead{seq, e.Hash}
	}
	return nil
}

func hasKey(b *bbolt.Bucket, key []byte) bool {
	k, _ := b.Cursor().Seek(key)
	return string(k) == string(key)
}

// finish holds the end of the walk against the heads.
func (v *auditVerifier) finish(head AuditHead) {
	switch end := v.check.Head; {
	case end.Seq < head.Seq:
		v.fault(end.Seq+1, "entries %d to %d are missing at the end", end.Seq+1, head.Seq)
	case end.Hash != head.Hash:
		v.fault(end.Seq, "entry %d is not the newest one that was noted", end.Seq)
	}
	for seq := range v.known {
		if seq > head.Seq {
			v.fault(head.Seq+1, "entry %d, whose hash was written down, is missing", seq)
		}
	}
}
