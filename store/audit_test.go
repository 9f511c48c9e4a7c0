package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// logged makes a vault whose audit log has n entries.
func logged(t *testing.T, n int) *Store {
	t.Helper()
	s := openTest(t, Config{})
	for i := range n {
		must(t, s.Audit(AuditEvent{
			Actor: ID{byte(i%3 + 1)}, Action: ActionPageOpened, Object: RouteObject("GET /dziennik"), Outcome: Denied,
			Details: []AuditDetail{DetailCount("n", i)},
		}))
	}
	return s
}

func verified(t *testing.T, s *Store, known ...AuditHead) AuditCheck {
	t.Helper()
	c, err := s.VerifyAudit(t.Context(), known, nil)
	must(t, err)
	return c
}

// TestAuditIsChained: the hash of each entry is that of its line, which names
// the one before; this test follows the chain with nothing but lines.
func TestAuditIsChained(t *testing.T) {
	s := logged(t, 5)
	defer closeTest(t, s)
	var lines []string
	for e, err := range s.AuditLog(AuditFilter{}) {
		must(t, err)
		lines = append(lines, e.Line())
	}
	slices.Reverse(lines)
	prev := strings.Repeat("0", 64)
	for i, line := range lines {
		f := strings.Split(line, "\t")
		if f[len(f)-1] != prev {
			t.Errorf("line %d ends in %s, want %s", i+1, f[len(f)-1], prev)
		}
		sum := sha256.Sum256([]byte(line))
		prev = hex.EncodeToString(sum[:])
	}
	head, err := s.AuditHead()
	must(t, err)
	if len(lines) != 5 || head.Seq != 5 || head.Hash.String() != prev {
		t.Errorf("%d lines, head %v, want 5 and %s", len(lines), head, prev)
	}
	if c := verified(t, s, head); c.Fault != "" || c.Events != 5 || c.Head != head {
		t.Errorf("verify: %+v", c)
	}
	if h, err := ParseAuditHead(head.String()); err != nil || h != head {
		t.Errorf("head reads back as %v, %v", h, err)
	}
}

// TestAuditTampering: whatever is done to the file behind the store's back is
// found, and named at its first place.
func TestAuditTampering(t *testing.T) {
	line := func(tx *bbolt.Tx, n uint64) []byte { return bytes.Clone(tx.Bucket(bucketAudit).Get(auditKey(n))) }
	put := func(tx *bbolt.Tx, n uint64, line []byte) error { return tx.Bucket(bucketAudit).Put(auditKey(n), line) }
	for _, tt := range []struct {
		name string
		do   func(tx *bbolt.Tx) error
		at   uint64
		say  string
	}{
		{"a word changed", func(tx *bbolt.Tx) error {
			return put(tx, 4, bytes.Replace(line(tx, 4), []byte("denied"), []byte("allowed"), 1))
		}, 5, "does not follow"},
		{"an entry rewritten to look whole", func(tx *bbolt.Tx) error {
			e, err := parseAudit(line(tx, 4))
			e.Actor = ID{9}
			return errorsJoin(err, put(tx, 4, e.line()), tx.Bucket(bucketAuditBy).Put(append(e.Actor[:], auditKey(4)...), nil))
		}, 5, "does not follow"},
		{"an entry removed", func(tx *bbolt.Tx) error { return tx.Bucket(bucketAudit).Delete(auditKey(7)) }, 7, "entry 7 is missing"},
		{"the first removed", func(tx *bbolt.Tx) error { return tx.Bucket(bucketAudit).Delete(auditKey(1)) }, 1, "entry 1 is missing"},
		{"two swapped", func(tx *bbolt.Tx) error {
			a, b := line(tx, 3), line(tx, 4)
			return errorsJoin(put(tx, 3, b), put(tx, 4, a))
		}, 3, "stands where"},
		{"the end cut off", func(tx *bbolt.Tx) error {
			return errorsJoin(tx.Bucket(bucketAudit).Delete(auditKey(9)), tx.Bucket(bucketAudit).Delete(auditKey(10)))
		}, 9, "missing at the end"},
		{"all removed", func(tx *bbolt.Tx) error {
			return errorsJoin(tx.DeleteBucket(bucketAudit), second(tx.CreateBucket(bucketAudit)))
		}, 1, "missing at the end"},
		{"the newest changed", func(tx *bbolt.Tx) error {
			return put(tx, 10, bytes.Replace(line(tx, 10), []byte("n=9"), []byte("n=8"), 1))
		}, 10, "not the newest one"},
		{"an entry hidden from the index", func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketAuditBy).Delete(append((&ID{2})[:], auditKey(2)...))
		}, 2, "not in the index"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := logged(t, 10)
			defer closeTest(t, s)
			must(t, s.central.update(tt.do))
			c := verified(t, s)
			if c.At != tt.at || !strings.Contains(c.Fault, tt.say) {
				t.Errorf("found %d: %q, want %d: …%s…", c.At, c.Fault, tt.at, tt.say)
			}
		})
	}
}

func second[A any](_ A, err error) error { return err }

func errorsJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestAuditEveryBit: any one bit of any line that is turned is found.
func TestAuditEveryBit(t *testing.T) {
	s := logged(t, 3)
	defer closeTest(t, s)
	var lines [3][]byte
	must(t, s.central.view(func(tx *bbolt.Tx) error {
		for i := range lines {
			lines[i] = bytes.Clone(tx.Bucket(bucketAudit).Get(auditKey(uint64(i + 1))))
		}
		return nil
	}))
	for i, line := range lines {
		for bit := 0; bit < 8*len(line); bit += 13 { // every byte is met, each bit of a byte somewhere
			bad := bytes.Clone(line)
			bad[bit/8] ^= 1 << (bit % 8)
			must(t, s.central.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketAudit).Put(auditKey(uint64(i+1)), bad) }))
			if c := verified(t, s); c.Fault == "" {
				t.Errorf("bit %d of line %d turned, and nothing was found", bit, i+1)
			}
		}
		must(t, s.central.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketAudit).Put(auditKey(uint64(i+1)), line) }))
	}
	if c := verified(t, s); c.Fault != "" {
		t.Errorf("put right again: %+v", c)
	}
}

// TestAuditGapStays: entries cut off are missed for ever, however many follow,
// and a head that was written down finds what was rewritten as a whole.
func TestAuditGapStays(t *testing.T) {
	s := logged(t, 6)
	defer closeTest(t, s)
	head, err := s.AuditHead()
	must(t, err)
	must(t, s.central.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketAudit).Delete(auditKey(6)) }))
	must(t, s.Audit(AuditEvent{Action: ActionLogin, Outcome: Allowed}))
	if c := verified(t, s); c.At != 6 || !strings.Contains(c.Fault, "entry 6 is missing") {
		t.Errorf("after a new entry: %+v", c)
	}
	// A forger who knows the form rewrites the end and its head.
	must(t, s.central.update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketAudit).Delete(auditKey(7)); err != nil {
			return err
		}
		before := tx.Bucket(bucketAudit).Get(auditKey(5))
		if err := putJSON(tx.Bucket(bucketMarks), keyAuditHead, AuditHead{5, sha256.Sum256(before)}); err != nil {
			return err
		}
		return appendAudit(tx, AuditEvent{Action: ActionLogout, Outcome: Allowed})
	}))
	if c := verified(t, s); c.Fault != "" {
		t.Errorf("a whole forgery without anything to compare it with: %+v", c)
	}
	if c := verified(t, s, head); c.At != 6 || !strings.Contains(c.Fault, "written down") {
		t.Errorf("a forgery against a head of before: %+v", c)
	}
}

// TestAuditReads: newest first, by subject, by filter, over more than one page.
func TestAuditReads(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	one, two := ID{1}, ID{2}
	must(t, s.central.update(func(tx *bbolt.Tx) error {
		for i := range 2*auditPage + 10 {
			e := AuditEvent{Actor: one, Action: ActionLogin, Outcome: Allowed}
			if i%100 == 0 {
				e = AuditEvent{Actor: two, Action: ActionAccountReset, Object: ObjectOf(ObjectAccount, one), Outcome: Denied}
			}
			if err := appendAudit(tx, e); err != nil {
				return err
			}
		}
		return nil
	}))
	all := 2*auditPage + 10
	hundreds := (all + 99) / 100
	today := ordinance.DayOf(time.Now())
	for _, tt := range []struct {
		name string
		f    AuditFilter
		want int
	}{
		{"all", AuditFilter{}, all},
		{"done by or to one", AuditFilter{Subject: one}, all},
		{"done by or to two", AuditFilter{Subject: two}, hundreds},
		{"done by two", AuditFilter{Actors: []ID{two}}, hundreds},
		{"done by nobody", AuditFilter{Actors: []ID{}}, 0},
		{"refused", AuditFilter{Outcome: Denied}, hundreds},
		{"one action", AuditFilter{Action: ActionAccountReset}, hundreds},
		{"before", AuditFilter{Before: 11}, 10},
		{"today", AuditFilter{From: today.Next(-1), To: today.Next(1)}, all},
		{"tomorrow", AuditFilter{From: today.Next(1)}, 0},
		{"long ago", AuditFilter{To: today.Next(-2)}, 0},
		{"somebody else", AuditFilter{Subject: ID{3}}, 0},
	} {
		n, last := 0, uint64(1<<63)
		for e, err := range s.AuditLog(tt.f) {
			must(t, err)
			if e.Seq >= last {
				t.Fatalf("%s: entry %d after %d", tt.name, e.Seq, last)
			}
			n, last = n+1, e.Seq
		}
		if n != tt.want {
			t.Errorf("%s: %d entries, want %d", tt.name, n, tt.want)
		}
	}
}

// TestAuditHasNoPlaceForPeople: what is not an id or of a list is refused, and
// nothing of a refused event is kept.
func TestAuditHasNoPlaceForPeople(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	number := ordinance.Number("+48601020304")
	for name, e := range map[string]AuditEvent{
		"action":        {Action: Action(number), Outcome: Allowed},
		"outcome":       {Action: ActionLogin, Outcome: AuditOutcome(number)},
		"no outcome":    {Action: ActionLogin},
		"purpose":       {Action: ActionLogin, Outcome: Allowed, Purpose: "Jan Kowalski"},
		"route":         {Action: ActionPageOpened, Outcome: Denied, Object: RouteObject("GET /archiwum/601020304")},
		"kind":          {Action: ActionPageOpened, Outcome: Denied, Object: ObjectOf("Jan Kowalski", ID{1})},
		"count":         {Action: ActionLogin, Outcome: Allowed, Details: []AuditDetail{DetailCount("n", 601020304)}},
		"key":           {Action: ActionLogin, Outcome: Allowed, Details: []AuditDetail{DetailCount(number.E164(), 1)}},
		"a negative":    {Action: ActionLogin, Outcome: Allowed, Details: []AuditDetail{DetailCount("n", -601020304)}},
		"a key of text": {Action: ActionLogin, Outcome: Allowed, Details: []AuditDetail{DetailCount("Jan Kowalski", 1)}},
	} {
		if err := s.Audit(e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if h, err := s.AuditHead(); err != nil || h.Seq != 0 {
		t.Errorf("head %v, %v", h, err)
	}
}

// TestSearchDigest: the same on one day, another on the next, and not to be
// found again when the day's key is gone; the number is in no file.
func TestSearchDigest(t *testing.T) {
	s := openTest(t, Config{})
	today := ordinance.DayOf(time.Now())
	digest := func(d ordinance.Day) Digest {
		t.Helper()
		sum, err := s.SearchDigest(d, "+48601020304")
		must(t, err)
		return sum
	}
	a, again, yesterday := digest(today), digest(today), digest(today.Next(-1))
	if a != again || a == yesterday || a.IsZero() {
		t.Errorf("%v, %v, the day before %v", a, again, yesterday)
	}
	must(t, s.Audit(AuditEvent{Action: ActionLogin, Outcome: Allowed, Details: []AuditDetail{DetailDigest("query", a)}}))
	closeTest(t, s)
	must(t, filepath.WalkDir(s.cfg.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("601020304")) {
			t.Errorf("%s holds the number", path)
		}
		return err
	}))
}

// TestAuditAnchor: the head goes to the program's log, where the vault's owner
// cannot change it.
func TestAuditAnchor(t *testing.T) {
	var log bytes.Buffer
	s := openTest(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer closeTest(t, s)
	must(t, s.Audit(AuditEvent{Action: ActionLogin, Outcome: Allowed}))
	s.anchorAudit()
	head, err := s.AuditHead()
	must(t, err)
	if !strings.Contains(log.String(), "head="+head.String()) {
		t.Errorf("no head in %q", log.String())
	}
}
