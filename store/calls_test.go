package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// model is what the vault should hold.
type model map[ID]CallRecord

func (m model) list(want func(CallRecord) bool) []CallRecord {
	list := slices.DeleteFunc(slices.Collect(maps.Values(m)), func(r CallRecord) bool { return !want(r) })
	slices.SortFunc(list, func(a, b CallRecord) int {
		if c := a.Day.Compare(b.Day); c != 0 {
			return c
		}
		if c := a.Began.Compare(b.Began); c != 0 {
			return c
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
	return list
}

// TestCallsAgainstModel puts, changes, moves and commits calls at random, opens
// the vault anew now and then, and compares every look-up with maps.
func TestCallsAgainstModel(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 284))
			s := openTest(t, Config{OpenDays: 2})
			defer func() { closeTest(t, s) }()
			m := model{}
			var ids []ID
			for range 150 {
				switch n := r.IntN(20); {
				case n < 8 || len(ids) == 0:
					rec := randomCall(r)
					must(t, s.PutCall(rec))
					m[rec.ID], ids = rec, append(ids, rec.ID)
				case n < 14: // a change; its recording is not its owner's to take away
					old := m[ids[r.IntN(len(ids))]]
					rec := randomCall(r)
					rec.ID, rec.Day, rec.Began = old.ID, old.Day, old.Began
					if r.IntN(2) == 0 {
						rec.Began = rec.Began.Add(time.Duration(r.IntN(1000)) * time.Second)
					}
					rec.Revision = old.Revision + uint32(r.IntN(3)) - 1
					must(t, s.PutCall(rec))
					if rec.Revision < old.Revision || old.Cause != "" && rec.Cause == "" {
						continue // late, or open again: changes nothing
					}
					if old.Recording.SHA256 != "" {
						rec.Recording = old.Recording
					}
					m[rec.ID] = rec
				case n < 16:
					rec := m[ids[r.IntN(len(ids))]]
					if rec.Recording.SHA256 != "" {
						continue
					}
					from := rec.Day
					rec.Day = rec.Day.Next(1)
					must(t, s.MoveCall(rec, from))
					m[rec.ID] = rec
				case n < 19:
					rec := m[ids[r.IntN(len(ids))]]
					m[rec.ID] = record(t, s, rec, make([]byte, 1+r.IntN(500)))
				default:
					must(t, s.Close())
					s = openTest(t, Config{Dir: s.cfg.Dir, OpenDays: 2})
				}
			}
			compare(t, s, m)
		})
	}
}

func randomCall(r *rand.Rand) CallRecord {
	day := day1.Next(r.IntN(6))
	began := day.Start().Add(time.Duration(r.IntN(80000)) * time.Second).UTC()
	rec := CallRecord{
		ID: NewID(), Day: day, Began: began, Revision: 1000,
		Direction: []CallDirection{Incoming, Outgoing, Internal}[r.IntN(3)],
		Caller:    Party{Number: randomNumber(r), Presentation: "allowed"},
		Called:    randomNumber(r),
		Extension: []string{"", "21", "2", "211"}[r.IntN(4)],
		Cause:     []Cause{"", CauseBusy, CauseHangupCaller, CauseAbandoned}[r.IntN(4)],
	}
	for range r.IntN(3) {
		ext := []string{"21", "22", "2"}[r.IntN(3)]
		rec.Rings = append(rec.Rings, Ring{Extension: ext, From: began, To: began, Result: []string{"answered", "timeout"}[r.IntN(2)]})
		rec.Segments = append(rec.Segments, Segment{Extension: []string{"21", "23"}[r.IntN(2)], From: began})
	}
	if rec.Direction == Incoming && r.IntN(3) > 0 { // it came for a queue
		rec.Queue, rec.Queued = []string{"cim", "podatki"}[r.IntN(2)], began.Add(17*time.Second)
		from := rec.Queued
		for range r.IntN(3) {
			to := from.Add(time.Duration(r.IntN(900)) * time.Second)
			rec.Stays = append(rec.Stays, Stay{Queue: []string{"cim", "podatki"}[r.IntN(2)], From: from, To: to,
				Result: []StayResult{StayAnswered, StayAbandoned, StayOverflowed, StayFailed, ""}[r.IntN(5)]})
			from = to
		}
	}
	if r.IntN(2) == 0 {
		rec.Answered = began.Add(time.Duration(20+r.IntN(600)) * time.Second)
	}
	if rec.Cause != "" {
		rec.Ended = began.Add(time.Duration(1000+r.IntN(600)) * time.Second)
		rec.Recording.Outcome = []Outcome{OutcomeNone, OutcomeFailed, OutcomeDegraded}[r.IntN(3)]
	}
	return rec
}

func randomNumber(r *rand.Rand) ordinance.Number {
	return []ordinance.Number{"", "112", "+48914245000", "+4891424500", "+48601234567"}[r.IntN(5)]
}

func compare(t *testing.T, s *Store, m model) {
	t.Helper()
	check := func(what string, got, want []CallRecord) {
		t.Helper()
		if !slices.EqualFunc(got, want, func(a, b CallRecord) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%s: %d calls, want %d", what, len(got), len(want))
		}
	}
	zero := ordinance.Day{}
	check("all", collect(t, s.CallsByDay(zero, zero)), m.list(func(CallRecord) bool { return true }))
	from, to := day1.Next(1), day1.Next(3)
	within := func(r CallRecord) bool { return r.Day.Compare(from) >= 0 && r.Day.Compare(to) <= 0 }
	check("some days", collect(t, s.CallsByDay(from, to)), m.list(within))
	for _, n := range []ordinance.Number{"112", "+48914245000", "+4891424500", "+48601234567", "+48"} {
		check("number", collect(t, s.CallsByNumber(n, from, to)), m.list(func(r CallRecord) bool {
			return within(r) && (r.Direction == Incoming && r.Caller.Number == n || r.Direction == Outgoing && r.Called == n)
		}))
	}
	for _, ext := range []string{"2", "21", "22", "23", "211", "9"} {
		check("agent "+ext, collect(t, s.CallsByAgent(ext, zero, to)), m.list(func(r CallRecord) bool {
			return r.Day.Compare(to) <= 0 && (r.Extension == ext ||
				slices.ContainsFunc(r.Segments, func(g Segment) bool { return g.Extension == ext }) ||
				slices.ContainsFunc(r.Rings, func(g Ring) bool { return g.Extension == ext && g.Result == "answered" }))
		}))
	}
	check("incidents", collect(t, s.Incidents(zero, zero)), m.list(func(r CallRecord) bool {
		return r.Recording.Outcome == OutcomeFailed || r.Recording.Outcome == OutcomeDegraded
	}))
	open, err := s.OpenCalls()
	must(t, err)
	check("open", open, m.list(func(r CallRecord) bool { return r.Cause == "" }))
	check("unserved", collect(t, s.scan(s.keptDays(zero, zero), bucketUnserved, nil)), m.list(func(r CallRecord) bool {
		return r.Direction == Incoming && r.Cause != "" && !r.Queued.IsZero() && r.Answered.IsZero()
	}))
	exactStatistics(t, s)
	for day := day1; day != day1.Next(9); day = day.Next(1) {
		want := make(map[Cause]int)
		due := DueDay{Day: day, LastDay: ordinance.LastDay(day)}
		for _, rec := range m {
			if rec.Day == day {
				want[rec.Cause]++
				due.Calls++
				if rec.Recording.SHA256 != "" {
					due.Recordings++
					due.Bytes += rec.Recording.Size
				}
			}
		}
		got, err := s.CountByCause(day)
		must(t, err)
		if !maps.Equal(got, want) {
			t.Errorf("causes of %v: %v, want %v", day, got, want)
		}
		days, err := s.Preview(ordinance.LastDay(day).Next(1))
		must(t, err)
		if n := len(days); due.Calls > 0 && (n == 0 || days[n-1] != due) {
			t.Errorf("preview ends with %+v, want %+v", days[max(0, n-1):], due)
		}
	}
	for id, want := range m {
		got, err := s.Find(id)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Find(%v): %+v, %v\nwant %+v", id, got, err, want)
		}
	}
	if _, err := s.Find(NewID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("Find of nothing: %v", err)
	}
	if _, err := s.Call(day1, NewID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("Call of nothing: %v", err)
	}
	if _, err := s.Call(day1.Next(1000), NewID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("Call of no day: %v", err)
	}
}

// TestConsumerHoldsNothing changes the vault from within a look-up, over
// several batches, and stops in the middle of one.
func TestConsumerHoldsNothing(t *testing.T) {
	s := openTest(t, Config{OpenDays: 1})
	defer closeTest(t, s)
	const calls = 2*scanBatch + 10
	jobs := make(chan CallRecord)
	errs := make(chan error)
	for range 8 {
		go func() {
			var err error
			for rec := range jobs {
				err = errors.Join(err, s.PutCall(rec))
			}
			errs <- err
		}()
	}
	for i := range calls {
		jobs <- call(day1, time.Duration(i)*time.Second)
	}
	close(jobs)
	for range 8 {
		must(t, <-errs)
	}
	n := 0
	for rec, err := range s.CallsByDay(day1, day1) {
		must(t, err)
		n++
		if n%50 == 0 {
			rec.Cause = CauseBusy
			must(t, s.PutCall(rec))
			must(t, s.PutCall(call(day1.Next(1), time.Hour))) // takes the only place of an open day
		}
	}
	if n != calls {
		t.Errorf("saw %d of %d calls", n, calls)
	}
	for range s.CallsByDay(day1, day1) {
		break
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		if p.refs != 0 {
			t.Errorf("%d holders of %v are left", p.refs, p.day)
		}
	}
	if len(s.parts) > 1 {
		t.Errorf("%d days are open, want 1", len(s.parts))
	}
}

func TestRecordWithoutIdentityIsRefused(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	for _, rec := range []CallRecord{{}, {ID: NewID(), Day: day1}, {ID: NewID(), Began: time.Now()}, {Day: day1, Began: time.Now()},
		{ID: NewID(), Began: time.Now(), Day: ordinance.Day{Year: 2026, Month: 2, Date: 31}}} {
		if s.PutCall(rec) == nil {
			t.Errorf("PutCall accepted %+v", rec)
		}
	}
	if len(s.lines) != 0 {
		t.Errorf("days were made: %v", s.lines)
	}
}

// TestDuplicateOfMovedCallIsResolved opens a vault as a crash between the two
// transactions of MoveCall leaves it.
func TestDuplicateOfMovedCallIsResolved(t *testing.T) {
	s := openTest(t, Config{})
	rec := call(day1, 24*time.Hour-time.Second)
	rec.Cause = ""
	must(t, s.PutCall(rec))
	moved := rec
	moved.Day = day1.Next(1)
	must(t, s.MoveCall(moved, day1))
	must(t, s.PutCall(rec)) // back in the old day
	p, err := s.acquire(moved.Day, false)
	must(t, err)
	must(t, p.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMoved).Put(rec.ID[:], []byte(day1.String())) }))
	s.yield(p)
	must(t, s.abandon())
	s = openTest(t, Config{Dir: s.cfg.Dir})
	defer closeTest(t, s)
	if _, err := s.Call(day1, rec.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("call is still in the old day: %v", err)
	}
	if open, err := s.OpenCalls(); err != nil || len(open) != 1 || open[0].Day != moved.Day {
		t.Errorf("open calls: %+v, %v", open, err)
	}
}

func TestOpenCallOnSettledDayIsFound(t *testing.T) {
	s := openTest(t, Config{})
	must(t, s.PutCall(call(day1, time.Hour)))
	s.settleDays(day1.Next(2).Start())
	if line, _ := s.line(day1); !line.Settled {
		t.Fatal("day without open calls is not settled")
	}
	rec := call(day1, time.Hour)
	rec.Cause = ""
	must(t, s.PutCall(rec))
	must(t, s.abandon())
	s = openTest(t, Config{Dir: s.cfg.Dir})
	defer closeTest(t, s)
	s.settleDays(day1.Next(2).Start())
	if open, err := s.OpenCalls(); err != nil || len(open) != 1 || open[0].ID != rec.ID {
		t.Errorf("open calls: %+v, %v", open, err)
	}
}

// TestLateStateAfterMove: a state of a call from before its move, written late,
// does not bring it back to its old day.
func TestLateStateAfterMove(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	old := CallRecord{ID: NewID(), Day: day1, Began: day1.Start().Add(20 * time.Hour), Direction: Incoming, Revision: 1}
	must(t, s.PutCall(old))
	rec := old
	rec.Day, rec.Revision = day1.Next(1), 2
	must(t, s.MoveCall(rec, old.Day))
	must(t, s.PutCall(old))
	if _, err := s.Call(old.Day, old.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the call is on its old day again: %v", err)
	}
	if got, err := s.Call(rec.Day, rec.ID); err != nil || got.Revision != 2 {
		t.Errorf("on its new day: %+v, %v", got, err)
	}
}

// TestFailedMoveLeavesTheCallWhereItWas: its states are stored on the old day
// as before.
func TestFailedMoveLeavesTheCallWhereItWas(t *testing.T) {
	files, full := osFiles, false
	files.mkdir = func(r *os.Root, name string) error {
		if full {
			return syscall.ENOSPC
		}
		return osFiles.mkdir(r, name)
	}
	s := openTest(t, Config{files: &files})
	defer closeTest(t, s)
	rec := call(day1, 20*time.Hour)
	rec.Cause = ""
	must(t, s.PutCall(rec))
	moved := rec
	moved.Day = day1.Next(1)
	full = true
	if err := s.MoveCall(moved, day1); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("MoveCall: %v", err)
	}
	rec.Cause = CauseAbandoned
	must(t, s.PutCall(rec))
	if got, err := s.Find(rec.ID); err != nil || got.Day != day1 || got.Cause != CauseAbandoned {
		t.Errorf("after a move that failed: %+v, %v", got, err)
	}
	full = false
	must(t, s.MoveCall(moved, day1))
	if got, err := s.Find(rec.ID); err != nil || got.Day != moved.Day {
		t.Errorf("after the next: %+v, %v", got, err)
	}
}
