package recorder

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// vault is a store with a recorder that runs.
type vault struct {
	t     *testing.T
	store *store.Store
	*Recorder
	stop func() // lets Run end and waits for it
}

// openVault starts a recorder over the store in dir. Each change is made to it
// before it runs.
func openVault(t *testing.T, dir string, change ...func(*Recorder)) *vault {
	t.Helper()
	s, err := store.Open(store.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	v := &vault{t: t, store: s, Recorder: New(Config{Store: s, Log: slog.New(slog.DiscardHandler)})}
	for _, c := range change {
		c(v.Recorder)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ran sync.WaitGroup
	ran.Go(func() {
		if err := v.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	var once sync.Once
	v.stop = func() {
		once.Do(func() {
			cancel()
			ran.Wait()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(v.stop)
	return v
}

// call begins a record as a switch does.
func (v *vault) call(direction store.CallDirection) store.CallRecord {
	v.t.Helper()
	rec := store.CallRecord{ID: store.NewID(), Day: ordinance.DayOf(time.Now()), Direction: direction, Began: time.Now(), Called: "+48914245000"}
	if err := v.store.PutCall(rec); err != nil {
		v.t.Fatal(err)
	}
	return rec
}

// ended waits until a call has an outcome.
func (v *vault) ended(day ordinance.Day, id store.ID) store.CallRecord {
	v.t.Helper()
	for range 3000 {
		rec, err := v.store.Call(day, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			v.t.Fatal(err)
		}
		if err == nil && rec.Recording.Outcome != "" {
			return rec
		}
		time.Sleep(100 * time.Millisecond)
	}
	v.t.Fatalf("call %v has no outcome: %+v", id, v.Status())
	return store.CallRecord{}
}

// played reads a recording out of the vault and checks what the record says
// of it.
func (v *vault) played(rec store.CallRecord) *played {
	v.t.Helper()
	b := v.file(rec)
	sum := sha256.Sum256(b)
	if rec.Recording.Size != int64(len(b)) || rec.Recording.SHA256 != hex.EncodeToString(sum[:]) {
		v.t.Errorf("record says %d bytes, %s", rec.Recording.Size, rec.Recording.SHA256)
	}
	p := &played{wav: b}
	for b = b[wavHeader:]; len(b) > 0; b = b[wavFrame:] {
		p.lanes[citizen] = append(p.lanes[citizen], int16(binary.LittleEndian.Uint16(b)))
		p.lanes[office] = append(p.lanes[office], int16(binary.LittleEndian.Uint16(b[2:])))
	}
	if d := time.Duration(len(p.lanes[0])) * time.Second / media.SampleRate; d != rec.Recording.Duration {
		v.t.Errorf("record says %v, the file lasts %v", rec.Recording.Duration, d)
	}
	return p
}

func (v *vault) file(rec store.CallRecord) []byte {
	v.t.Helper()
	f, err := v.store.OpenRecording(rec.Day, rec.ID)
	if err != nil {
		v.t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err := errors.Join(err, f.Close()); err != nil {
		v.t.Fatal(err)
	}
	return b
}

// speak feeds both taps from now on as the two phones, for a while, and
// returns when it is over.
func speak(c *Recording, a, b []packetAt) {
	epoch := time.Now()
	var both sync.WaitGroup
	for side, packets := range [2][]packetAt{a, b} {
		both.Go(func() {
			for _, p := range packets {
				time.Sleep(time.Until(epoch.Add(time.Duration(p.at) * time.Microsecond)))
				c.taps[side].Put(&p.Packet)
			}
		})
	}
	both.Wait()
}

func (v *vault) noJournals() {
	v.t.Helper()
	if refs, err := v.store.Journals(); err != nil || len(refs) > 0 {
		v.t.Errorf("journals are left: %v, %v", refs, err)
	}
}

// A conversation becomes a file of its length with each side in its lane; hold
// is silent in both and labelled; the record carries what it should.
func TestConversationBecomesRecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := openVault(t, t.TempDir())
		rec := v.call(store.Incoming)
		time.Sleep(3 * time.Second)
		at := time.Now()
		rec.Answered = at
		c := v.Start(rec, at)
		go func() {
			time.Sleep(4 * time.Second)
			c.Hold(time.Now(), true)
			c.Hold(time.Now(), true)
			time.Sleep(3 * time.Second)
			c.Hold(time.Now(), false)
			rec.Segments = []store.Segment{{Extension: "101", From: at}}
			c.Update(rec)
			time.Sleep(time.Second)
			if got, err := v.store.Call(c.Day(), rec.ID); err != nil || len(got.Segments) != 1 {
				t.Errorf("while open, the record is %+v, %v", got, err)
			}
		}()
		speak(c, phoneA().talk(0, 10*second), phoneB().talk(0, 10*second))
		time.Sleep(123 * time.Millisecond)
		length := time.Since(at)
		rec.Ended, rec.Cause = time.Now(), store.CauseHangupCaller
		c.Finish(rec, time.Now())
		c.Finish(store.CallRecord{}, time.Now().Add(time.Hour)) // only the first counts

		got := v.ended(c.Day(), rec.ID)
		if got.Recording.Outcome != store.OutcomeOK || got.Recording.Reason != "" || got.Cause != store.CauseHangupCaller {
			t.Errorf("outcome %+v, cause %v", got.Recording, got.Cause)
		}
		if d := length - got.Recording.Duration; d < 0 || d >= 125*time.Microsecond {
			t.Errorf("the file lasts %v, the conversation %v", got.Recording.Duration, length)
		}
		if n := got.Recording.Counts; n.Packets != [2]uint64{500, 500} || n.Lost != [2]uint64{} || n.Dropped != [2]uint64{} || !got.Recording.Began.Equal(at) {
			t.Errorf("recording %+v", got.Recording)
		}
		if len(got.Holds) != 1 || !got.Holds[0].From.Equal(at.Add(4*time.Second)) || !got.Holds[0].To.Equal(at.Add(7*time.Second)) {
			t.Errorf("holds %+v", got.Holds)
		}
		p := v.played(got)
		for _, at := range []int64{1, 2, 3, 7, 8, 9} {
			p.hears(t, citizen, low, at*second+low.phase)
		}
		for _, at := range []int64{1, 2, 7, 8} {
			p.hears(t, office, high, at*second+high.phase)
		}
		for i := 4 * media.SampleRate; i < 7*media.SampleRate; i++ {
			if p.lanes[0][i] != 0 || p.lanes[1][i] != 0 {
				t.Fatalf("sound on hold at sample %d", i)
			}
		}
		if len(got.Recording.Peaks[0]) != 1200 || len(got.Recording.Peaks[1]) != 1200 {
			t.Errorf("peaks %d, %d", len(got.Recording.Peaks[0]), len(got.Recording.Peaks[1]))
		}
		v.noJournals()
		if s := v.Status(); s.Active != 0 || s.Rendering != 0 || s.Outcomes[store.OutcomeOK] != 1 || s.Alarm || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
	})
}

// A call belongs to the day on which its recording began, and has one record,
// whatever the store had before.
func TestDayIsFixedByBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := openVault(t, t.TempDir())
		today := ordinance.DayOf(time.Now())
		time.Sleep(time.Until(today.Next(1).Start().Add(-10 * time.Second)))
		rec := v.call(store.Incoming)
		time.Sleep(20 * time.Second)
		c := v.Start(rec, time.Now())
		if rec.Day != today || c.Day() != today.Next(1) {
			t.Fatalf("the record began on %v, the recording's day is %v", rec.Day, c.Day())
		}
		time.Sleep(10 * time.Second)
		rec.Cause, rec.Ended = store.CauseHangupCaller, time.Now()
		c.Finish(rec, time.Now()) // with the day that it does not have any more
		got := v.ended(today.Next(1), rec.ID)
		if got.Day != today.Next(1) || got.Recording.Duration != 10*time.Second {
			t.Errorf("record of %v, %v long", got.Day, got.Recording.Duration)
		}
		if _, err := v.store.Call(today, rec.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the record is still on the day before: %v", err)
		}
	})
}

// A conversation in which nobody sent a packet is silence of its length.
func TestSilentConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := openVault(t, t.TempDir())
		rec := v.call(store.Outgoing)
		c := v.Start(rec, time.Now())
		time.Sleep(5 * time.Second)
		c.Finish(rec, time.Now())
		got := v.ended(c.Day(), rec.ID)
		if got.Recording.Outcome != store.OutcomeOK || got.Recording.Reason == "" || got.Recording.Duration != 5*time.Second {
			t.Errorf("recording %+v", got.Recording)
		}
		v.played(got)
	})
}

// faultyDisk puts what a disk can do in front of the vault.
type faultyDisk struct {
	err     atomic.Pointer[error] // of create and Append
	stall   atomic.Int64          // time that Append takes, ns
	syncing time.Duration         // time that a sync takes
}

func (d *faultyDisk) fail(err error) { d.err.Store(&err) }

func (d *faultyDisk) now() error {
	time.Sleep(time.Duration(d.stall.Load()))
	if err := d.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *faultyDisk) under(r *Recorder) {
	create, sync := r.disk.create, r.disk.sync
	r.disk.create = func(day ordinance.Day, id store.ID) (journal, error) {
		if err := d.now(); err != nil {
			return nil, err
		}
		j, err := create(day, id)
		return &faultyJournal{j, d}, err
	}
	r.disk.sync = func() error {
		time.Sleep(d.syncing)
		return sync()
	}
}

type faultyJournal struct {
	journal
	disk *faultyDisk
}

func (j *faultyJournal) Append(b []byte) error {
	if err := j.disk.now(); err != nil {
		return err
	}
	return j.journal.Append(b)
}

// A full disk costs what it costs and is told: the recorder is not ready, an
// alarm shows within ten seconds, the rest of the conversation is kept, the
// outcome counts what is missing (S1.3-j).
func TestFullDiskDegrades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d faultyDisk
		v := openVault(t, t.TempDir(), d.under)
		rec := v.call(store.Incoming)
		c := v.Start(rec, time.Now())
		go func() {
			time.Sleep(4 * time.Second)
			if err := v.Ready(); err != nil {
				t.Errorf("not ready: %v", err)
			}
			d.fail(syscall.ENOSPC)
			time.Sleep(time.Second)
			if err := v.Ready(); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("ready although the disk is full: %v", err)
			}
			if s := v.Status(); !s.Alarm || s.WriteFails == 0 || s.Unwritten == 0 || s.LastError == "" || time.Since(s.LastFailed) > time.Second {
				t.Errorf("status %+v", s)
			}
			c.Hold(time.Now(), true) // a mark that must survive
			time.Sleep(time.Second)
			c.Hold(time.Now(), false)
			time.Sleep(time.Second)
			d.fail(nil)
			time.Sleep(time.Second)
			if err := v.Ready(); err != nil || v.Status().Alarm {
				t.Errorf("still not ready: %v, %+v", err, v.Status())
			}
		}()
		speak(c, phoneA().talk(0, 15*second), phoneB().talk(0, 15*second))
		c.Finish(rec, time.Now())
		got := v.ended(c.Day(), rec.ID)
		n := got.Recording.Counts
		if got.Recording.Outcome != store.OutcomeDegraded || got.Recording.Reason == "" || n.WriteFails < 7 || n.WriteFails > 8 {
			t.Errorf("recording %+v", got.Recording)
		}
		for side := range 2 {
			if n.Dropped[side] < 14*10-5 || // a packet at the edge of a block may be in the next
				n.Dropped[side] > 170 || n.Packets[side]+n.Dropped[side] != 750 || n.Lost[side] != 0 {
				t.Errorf("lane %d: %+v", side, n)
			}
		}
		if len(got.Holds) != 1 || got.Holds[0].To.Sub(got.Holds[0].From) != time.Second {
			t.Errorf("holds %+v", got.Holds)
		}
		p := v.played(got)
		for _, at := range []int64{1, 2, 3, 8, 9, 13} {
			p.hears(t, citizen, low, at*second+low.phase)
		}
	})
}

// If nothing can be kept the recording has failed; the recorder finds out by
// itself when the disk takes data again.
func TestDeadDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d faultyDisk
		d.fail(syscall.EIO)
		v := openVault(t, t.TempDir(), d.under)
		rec := v.call(store.Incoming)
		c := v.Start(rec, time.Now())
		speak(c, phoneA().talk(0, 12*second), nil)
		if !v.Status().Alarm || v.Status().Overflowed == 0 {
			t.Errorf("status %+v", v.Status())
		}
		c.Finish(rec, time.Now())
		got := v.ended(c.Day(), rec.ID)
		if got.Recording.Outcome != store.OutcomeFailed || got.Recording.Reason == "" || got.Recording.Counts.Dropped[citizen] == 0 || got.Recording.Size != 0 {
			t.Errorf("recording %+v", got.Recording)
		}
		if _, err := v.store.OpenRecording(got.Day, got.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a failed recording opens: %v", err)
		}
		if v.Ready() == nil {
			t.Error("ready although the disk is dead")
		}
		d.fail(nil)
		time.Sleep(10 * time.Second)
		if err := v.Ready(); err != nil {
			t.Errorf("not ready although the disk works again: %v", err)
		}
		v.noJournals()
		if s := v.Status(); s.Outcomes[store.OutcomeFailed] != 1 {
			t.Errorf("status %+v", s)
		}
	})
}

// A disk whose sync takes five seconds costs nothing.
func TestSlowSyncLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := faultyDisk{syncing: 5 * time.Second}
		v := openVault(t, t.TempDir(), d.under)
		rec := v.call(store.Incoming)
		c := v.Start(rec, time.Now())
		speak(c, phoneA().talk(0, 30*second), phoneB().talk(0, 30*second))
		c.Finish(rec, time.Now())
		got := v.ended(c.Day(), rec.ID)
		if got.Recording.Outcome != store.OutcomeOK || got.Recording.Counts.Packets != [2]uint64{1500, 1500} {
			t.Errorf("recording %+v", got.Recording)
		}
	})
}

// A disk that hangs overflows the rings, which is counted, and holds nobody up.
func TestHangingDiskOverflowsRings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d faultyDisk
		v := openVault(t, t.TempDir(), d.under)
		rec := v.call(store.Incoming)
		c := v.Start(rec, time.Now())
		go func() {
			time.Sleep(3 * time.Second)
			d.stall.Store(int64(15 * time.Second))
			time.Sleep(9 * time.Second)
			d.stall.Store(0)
			now := time.Now()
			c.Hold(now, true)
			c.Update(rec)
			c.Hold(now, false)
			other := v.Start(v.call(store.Incoming), now)
			other.Finish(store.CallRecord{ID: other.id, Cause: store.CauseHangupCaller}, now)
			if err := v.Ready(); err == nil || !v.Status().Alarm {
				t.Errorf("ready although the disk hangs: %v, %+v", err, v.Status())
			}
			if d := time.Since(now); d != 0 {
				t.Errorf("the call was held up for %v", d)
			}
		}()
		speak(c, phoneA().talk(0, 25*second), phoneB().talk(0, 25*second))
		c.Finish(rec, time.Now())
		got := v.ended(c.Day(), rec.ID)
		n := got.Recording.Counts
		if got.Recording.Outcome != store.OutcomeDegraded || n.Dropped[citizen] == 0 || n.Dropped[office] == 0 {
			t.Errorf("recording %+v", got.Recording)
		}
		for side := range 2 {
			if n.Packets[side]+n.Dropped[side] != 1250 || n.Lost[side] != 0 {
				t.Errorf("lane %d: %+v", side, n)
			}
		}
		if s := v.Status(); s.Overflowed != n.Dropped[0]+n.Dropped[1] {
			t.Errorf("status %+v", s)
		}
		p := v.played(got)
		p.hears(t, citizen, low, 2*second+low.phase)
		p.hears(t, office, high, 22*second+high.phase)
	})
}

// Run waits for conversations that go on, and renders them.
func TestRunWaitsForRecordings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		v := openVault(t, dir)
		rec := v.call(store.Incoming)
		c := v.Start(rec, time.Now())
		var finished atomic.Bool
		go func() {
			speak(c, phoneA().talk(0, 5*second), nil)
			finished.Store(true)
			rec.Cause = store.CauseShutdown
			c.Finish(rec, time.Now())
		}()
		time.Sleep(time.Second)
		v.stop()
		if !finished.Load() {
			t.Fatal("Run returned in the conversation")
		}
		v = openVault(t, dir)
		got := v.ended(c.Day(), rec.ID)
		if got.Recording.Outcome != store.OutcomeOK || got.Recording.Duration != 4980*time.Millisecond || got.Cause != store.CauseShutdown {
			t.Errorf("record %+v", got)
		}
		if s := v.Status(); s.Recovered != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// With little room left the recorder says so before a write fails, and goes on
// recording.
func TestNearlyFullDiskIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Int64
		free.Store(leastFree)
		v := openVault(t, t.TempDir(), func(r *Recorder) { r.disk.free = func() (int64, error) { return free.Load(), nil } })
		rec := v.call(store.Incoming)
		c := v.Start(rec, time.Now())
		time.Sleep(3 * time.Second)
		if err := v.Ready(); err != nil {
			t.Error(err)
		}
		free.Store(leastFree - 1)
		time.Sleep(10 * time.Second)
		if err := v.Ready(); !errors.Is(err, syscall.ENOSPC) || !v.Status().Alarm {
			t.Errorf("ready: %v", err)
		}
		c.Finish(rec, time.Now())
		if got := v.ended(c.Day(), rec.ID); got.Recording.Outcome != store.OutcomeOK {
			t.Errorf("recording %+v", got.Recording)
		}
		free.Store(leastFree)
		time.Sleep(10 * time.Second) // nobody records, and yet it is noticed
		if err := v.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// Calls that begin faster than blocks are written do not put the writing off.
func TestBeginningsDoNotStarveTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var syncs atomic.Int64
		v := openVault(t, t.TempDir(), func(r *Recorder) {
			sync := r.disk.sync
			r.disk.sync = func() error { syncs.Add(1); return sync() }
		})
		rec := v.call(store.Incoming)
		c := v.Start(rec, time.Now())
		go func() {
			for range 100 {
				time.Sleep(100 * time.Millisecond)
				rec := v.call(store.Incoming)
				v.Start(rec, time.Now()).Finish(rec, time.Now())
			}
		}()
		speak(c, phoneA().talk(0, 10*second), phoneB().talk(0, 10*second))
		c.Finish(rec, time.Now())
		if got := v.ended(c.Day(), rec.ID); got.Recording.Outcome != store.OutcomeOK || got.Recording.Counts.Packets[office] != 500 {
			t.Errorf("recording %+v", got.Recording)
		}
		if n := syncs.Load(); n < 9 || n > 12 {
			t.Errorf("%d syncs in ten seconds", n)
		}
	})
}

// Many calls at a time do not get into each other's way.
func TestManyAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := openVault(t, t.TempDir(), func(r *Recorder) { r.cfg.Workers = 2 })
		const calls = 40
		a := phoneA().talk(0, 3*second)
		var all sync.WaitGroup
		for i := range calls {
			all.Go(func() {
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
				rec := v.call(store.Incoming)
				c := v.Start(rec, time.Now())
				speak(c, a[:50+i], a)
				rec.Cause = store.CauseHangupCalled
				c.Finish(rec, time.Now())
				got := v.ended(c.Day(), rec.ID)
				if got.Recording.Outcome != store.OutcomeOK || got.Recording.Counts.Packets != [2]uint64{uint64(50 + i), 150} {
					t.Errorf("call %d: %+v", i, got.Recording)
				}
			})
		}
		all.Wait()
		v.noJournals()
	})
}

// leave puts into a vault what a crash leaves of a call: an open record and a
// journal.
func leave(t *testing.T, s *store.Store, rec *store.CallRecord, blocks [][]byte) {
	t.Helper()
	if rec != nil {
		if err := s.PutCall(*rec); err != nil {
			t.Fatal(err)
		}
	}
	if blocks == nil {
		return
	}
	j, err := s.CreateJournal(rec.Day, rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if err := j.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// What a crash left is recovered by the same function, and every call that was
// open has an end and an outcome.
func TestRecoversWhatACrashLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, err := store.Open(store.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		day := ordinance.DayOf(began)
		open := func() *store.CallRecord {
			return &store.CallRecord{ID: store.NewID(), Day: day, Direction: store.Incoming, Began: began, Answered: began.Add(time.Second),
				Segments: []store.Segment{{Extension: "101", From: began.Add(time.Second)}}, Recording: store.Recording{Began: began.Add(time.Second)}}
		}
		voices := [2][]packetAt{phoneA().talk(0, 7*second), phoneB().talk(0, 7*second)}
		cut, whole, bare, unanswered, internal, empty := open(), open(), open(), open(), open(), open()
		leave(t, s, cut, recordTape(voices, []span{{5 * second, 9 * second}}, -1).blocks)
		whole.Cause, whole.Ended = store.CauseHangupCalled, began.Add(8*time.Second)
		leave(t, s, whole, recordTape(voices, nil, 7*second).blocks)
		leave(t, s, bare, nil)
		unanswered.Answered, unanswered.Segments, unanswered.Recording = time.Time{}, nil, store.Recording{}
		leave(t, s, unanswered, nil)
		internal.Direction = store.Internal
		leave(t, s, internal, nil)
		leave(t, s, empty, [][]byte{})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		time.Sleep(time.Hour)
		v := openVault(t, dir)
		fresh := v.call(store.Incoming) // begun after New: not a remnant
		c := v.Start(fresh, time.Now())

		got := v.ended(day, cut.ID)
		end := began.Add(time.Second + 7*time.Second)
		if got.Recording.Outcome != store.OutcomeDegraded || got.Recording.Duration != 7*time.Second || got.Cause != store.CauseInterrupted ||
			!got.Ended.Equal(end) || !got.Segments[0].To.Equal(end) || len(got.Holds) != 1 {
			t.Errorf("cut journal: %+v", got)
		}
		v.played(got).hears(t, citizen, low, 3*second+low.phase)
		got = v.ended(day, whole.ID)
		if got.Recording.Outcome != store.OutcomeOK || got.Cause != store.CauseHangupCalled || !got.Ended.Equal(whole.Ended) {
			t.Errorf("whole journal: %+v", got)
		}
		for what, x := range map[string]struct {
			rec     *store.CallRecord
			outcome store.Outcome
			ended   time.Time
		}{
			"no journal":    {bare, store.OutcomeFailed, began.Add(time.Second)},
			"empty journal": {empty, store.OutcomeFailed, began.Add(time.Second)},
			"not answered":  {unanswered, store.OutcomeNone, began},
			"internal":      {internal, store.OutcomeNone, began.Add(time.Second)},
		} {
			got := v.ended(day, x.rec.ID)
			if got.Recording.Outcome != x.outcome || got.Recording.Reason == "" || got.Cause != store.CauseInterrupted || !got.Ended.Equal(x.ended) {
				t.Errorf("%s: %+v", what, got)
			}
		}
		v.noMoreThan(c.id)
		if n := v.Status().Recovered; n != 6 {
			t.Errorf("%d calls recovered", n)
		}
		fresh.Cause = store.CauseHangupCaller
		c.Finish(fresh, time.Now())
		if got := v.ended(c.Day(), fresh.ID); got.Cause != store.CauseHangupCaller {
			t.Errorf("the new call was taken for a remnant: %+v", got)
		}
	})
}

func (v *vault) noMoreThan(id store.ID) {
	v.t.Helper()
	refs, err := v.store.Journals()
	if err != nil {
		v.t.Fatal(err)
	}
	for _, ref := range refs {
		if ref.ID != id {
			v.t.Errorf("journal %v is left", ref)
		}
	}
}

// If the store has no record, or has it on the day of the INVITE, the journal
// is enough.
func TestRecoversRecordFromJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, err := store.Open(store.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		day := ordinance.DayOf(at)
		// A recorder writes the journal's beginning; nobody stores the record.
		r := New(Config{Store: s, Log: slog.New(slog.DiscardHandler)})
		known := r.Start(store.CallRecord{ID: store.NewID(), Day: day, Direction: store.Outgoing, Extension: "101", Began: at}, at)
		moved := store.CallRecord{ID: store.NewID(), Day: day.Next(-1), Direction: store.Incoming, Began: at.Add(-time.Minute), Queue: "cim"}
		if err := s.PutCall(moved); err != nil {
			t.Fatal(err)
		}
		other := r.Start(moved, at)
		speak(known, phoneA().talk(0, 2*second), nil)
		known.drain()
		other.drain()
		if err := errors.Join(known.journal.Close(), other.journal.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}

		v := openVault(t, dir)
		got := v.ended(day, known.id)
		if got.Direction != store.Outgoing || got.Extension != "101" || got.Recording.Outcome != store.OutcomeDegraded || got.Recording.Duration != 1980*time.Millisecond+20*time.Millisecond {
			t.Errorf("record %+v", got)
		}
		got = v.ended(day, other.id)
		if got.Queue != "cim" || got.Cause != store.CauseInterrupted {
			t.Errorf("record %+v", got)
		}
		if _, err := v.store.Call(day.Next(-1), other.id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the record is on two days: %v", err)
		}
	})
}

// torn is the tape as a crash leaves it: whole blocks and some bytes.
func (t *tape) torn(blocks int, bytes int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, b := range t.blocks[:blocks] {
			if !yield(b, nil) {
				return
			}
		}
		if bytes > 0 {
			yield(nil, &store.TornError{Bytes: bytes})
		}
	}
}

// Wherever a journal is cut, what is before is rendered, to the last packet.
func TestCutAnywhereNearTheEnd(t *testing.T) {
	tp := recordTape([2][]packetAt{phoneA().talk(0, 600*millisecond), nil}, nil, 600*millisecond)
	n := len(tp.blocks) // start, 3 flushes, end
	for whole := n - 3; whole < n; whole++ {
		for cut := range int64(len(tp.blocks[whole])) {
			o, err := outlineOf(tp.torn(whole, cut))
			if err != nil {
				t.Fatal(err)
			}
			var w countingWriter
			r, err := render(&w, tp.torn(whole, cut), &o)
			if err != nil {
				t.Fatal(err)
			}
			outcome, reason := judge(&o, true)
			if want := time.Duration(whole-1) * 200 * time.Millisecond; r.duration != want || r.counts.TornBytes != cut || r.counts.Packets[0] != uint64(whole-1)*10 || outcome != store.OutcomeDegraded || reason == "" {
				t.Fatalf("%d blocks and %d bytes: %v, %+v, %v (%s)", whole, cut, r.duration, r.counts, outcome, reason)
			}
		}
	}
}

// A journal that cannot be read is an error, not an empty recording.
func TestUnreadableJournalIsAnError(t *testing.T) {
	broken := func(yield func([]byte, error) bool) { yield(nil, fmt.Errorf("read: %w", syscall.EIO)) }
	if _, err := outlineOf(broken); !errors.Is(err, syscall.EIO) {
		t.Errorf("outline: %v", err)
	}
	if _, err := render(io.Discard, broken, &outline{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("render: %v", err)
	}
}

// TestNobodyStopsARecording: what a call can do with its recording is listed
// here; nothing among it pauses, stops or deletes one (S1.3-f). Hold is the
// parties' own and is labelled; Finish is the conversation's end.
func TestNobodyStopsARecording(t *testing.T) {
	var got []string
	typ := reflect.TypeFor[*Recording]()
	for i := range typ.NumMethod() {
		got = append(got, typ.Method(i).Name)
	}
	if want := []string{"Citizen", "Day", "Finish", "Hold", "Office", "Update"}; !slices.Equal(got, want) {
		t.Errorf("a recording can be told to %v, want %v", got, want)
	}
}
