package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"centralka/ordinance"
)

func openTest(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(memoryDir(t), "vault")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if cfg.clock == nil {
		cfg.clock = goodClock()
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.passwords.memory = 64 // KiB: what hashing costs is not what these tests ask
	return s
}

// goodClock is a machine's that runs with the bubble's time, or the test's own,
// and is synchronised.
func goodClock() *clockFacts {
	return &clockFacts{
		synchronised: func() bool { return true },
		uptime:       func() (string, time.Duration, bool) { return "boot", time.Since(time.Unix(0, 0)), true },
	}
}

// memoryDir is a folder where an fsync costs nothing, if the machine has one:
// these tests ask what is in the files, not in the disk's cache.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "centralka-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func closeTest(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// call makes a plain ended call of a day.
func call(day ordinance.Day, offset time.Duration) CallRecord {
	began := day.Start().Add(offset).UTC()
	return CallRecord{
		ID: NewID(), Day: day, Direction: Incoming, Began: began, Ended: began.Add(time.Minute),
		Caller:    Party{Number: "+48914245000", Presentation: "allowed"},
		Cause:     CauseAbandoned,
		Recording: Recording{Outcome: OutcomeNone, Reason: "not answered"},
	}
}

// record puts a call with a recording of some bytes through the whole way.
func record(t testing.TB, s *Store, rec CallRecord, content []byte) CallRecord {
	t.Helper()
	j, err := s.CreateJournal(rec.Day, rec.ID)
	must(t, err)
	must(t, j.Append(content))
	must(t, j.Close())
	f, err := s.PutFile(rec.Day, rec.ID, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	must(t, err)
	rec.Cause = CauseHangupCaller
	rec.Segments = []Segment{{Extension: "21", From: rec.Began}}
	rec.Recording = Recording{Outcome: OutcomeOK, Size: f.Size, SHA256: f.SHA256}
	must(t, s.CommitRecording(rec))
	return rec
}

func collect(t testing.TB, seq func(func(CallRecord, error) bool)) (list []CallRecord) {
	t.Helper()
	for rec, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rec)
	}
	return list
}

var day1 = ordinance.Day{Year: 2026, Month: time.November, Date: 23}

func TestSecondOpenIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Config{})
		defer closeTest(t, s)
		began := time.Now()
		_, err := Open(Config{Dir: s.cfg.Dir})
		if !errors.Is(err, ErrInUse) {
			t.Fatalf("second Open: %v, want ErrInUse", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestVaultIsClosedToOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	must(t, os.Mkdir(dir, 0o755))
	s := openTest(t, Config{Dir: dir})
	rec := record(t, s, call(day1, time.Hour), []byte("x"))
	closeTest(t, s)
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}))
	if err := s.PutCall(rec); !errors.Is(err, ErrClosed) {
		t.Errorf("PutCall after Close: %v", err)
	}
	if _, err := s.OpenRecording(rec.Day, rec.ID); !errors.Is(err, ErrClosed) {
		t.Errorf("OpenRecording after Close: %v", err)
	}
}

// TestNothingPersonalOutlivesItsDay looks for a number and a phrase in every
// byte of what is not a day folder (S6-e).
func TestNothingPersonalOutlivesItsDay(t *testing.T) {
	s := openTest(t, Config{})
	rec := call(day1, time.Hour)
	rec.Caller = Party{Number: "+48601234567", Raw: "601234567", Presentation: "allowed"}
	record(t, s, rec, []byte("unique phrase"))
	must(t, s.PutBindings("21", []Binding{{Contact: "sip:21@127.0.0.21"}}))
	closeTest(t, s)
	text, err := os.ReadFile(filepath.Join(s.cfg.Dir, centralFile))
	must(t, err)
	if bytes.Contains(text, []byte("601234567")) || bytes.Contains(text, []byte("unique phrase")) {
		t.Error("centralka.db holds what belongs to a day")
	}
	if !bytes.Contains(text, []byte(day1.String())) {
		t.Error("centralka.db does not list the day: the test looks in the wrong place")
	}
}

func TestBindingsSurviveRestart(t *testing.T) {
	s := openTest(t, Config{})
	b := Binding{
		Contact: "sip:21@192.0.2.21:5060;transport=udp", Received: "192.0.2.21:5060", Transport: "udp",
		CallID: "a@b", CSeq: 7, Expires: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), UserAgent: "phone", Instance: "<urn:uuid:1>",
	}
	must(t, s.PutBindings("21", []Binding{b, {Contact: "sip:other"}}))
	must(t, s.PutBindings("22", []Binding{b}))
	must(t, s.PutBindings("22", nil))
	closeTest(t, s)
	s = openTest(t, Config{Dir: s.cfg.Dir})
	defer closeTest(t, s)
	all, err := s.Bindings()
	must(t, err)
	if len(all) != 1 || len(all["21"]) != 2 || all["21"][0] != b {
		t.Errorf("bindings after restart: %+v", all)
	}
}

func TestPhonesSurviveRestart(t *testing.T) {
	s := openTest(t, Config{})
	must(t, s.PutPhone("21", PhoneState{Quiet: true}))
	must(t, s.PutPhone("21", PhoneState{Away: "break"}))
	closeTest(t, s)
	s = openTest(t, Config{Dir: s.cfg.Dir})
	defer closeTest(t, s)
	all, err := s.Phones()
	must(t, err)
	if len(all) != 1 || all["21"] != (PhoneState{Away: "break"}) {
		t.Errorf("phones after restart: %+v", all)
	}
}

func TestOutagesExplainGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(90 * time.Second)
		cancel()
		must(t, <-done)
		lastBeat := time.Now().Add(-30 * time.Second)
		must(t, s.abandon())
		time.Sleep(time.Hour)
		s = openTest(t, Config{Dir: s.cfg.Dir})
		crashEnd := time.Now()
		time.Sleep(time.Minute)
		stopped := time.Now()
		closeTest(t, s)
		time.Sleep(time.Hour)
		s = openTest(t, Config{Dir: s.cfg.Dir})
		defer closeTest(t, s)
		got, err := s.Outages()
		must(t, err)
		want := []Outage{{lastBeat.UTC(), crashEnd.UTC(), false}, {stopped.UTC(), time.Now().UTC(), true}}
		if len(got) != 2 || !got[0].From.Equal(want[0].From) || !got[0].To.Equal(want[0].To) || got[0].Orderly ||
			!got[1].From.Equal(want[1].From) || !got[1].To.Equal(want[1].To) || !got[1].Orderly {
			t.Errorf("outages %+v\nwant %+v", got, want)
		}
	})
}

// abandon leaves the vault as a kill would, but lets go of its locks.
func (s *Store) abandon() error {
	s.mu.Lock()
	var days []ordinance.Day
	for day := range s.parts {
		days = append(days, day)
	}
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for _, j := range s.openJournals() {
		errs = append(errs, j.file.Close())
	}
	for _, day := range days {
		errs = append(errs, s.retire(day))
	}
	return errors.Join(append(errs, s.release())...)
}

func TestDiskCountsDaysLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Config{})
		defer closeTest(t, s)
		if u, err := s.Disk(); err != nil || u.DaysLeft != -1 || u.Total == 0 || u.Free > u.Total {
			t.Errorf("usage of an empty vault: %+v, %v", u, err)
		}
		time.Sleep(2 * usageAge)
		today := ordinance.DayOf(time.Now())
		record(t, s, call(today.Next(-1), time.Hour), make([]byte, 60000))
		record(t, s, call(today.Next(-20), time.Hour), make([]byte, 60000))
		u, err := s.Disk()
		must(t, err)
		if len(u.Days) != 1 || u.Days[0].Day != today.Next(-1) || u.Days[0].Bytes < 60000 {
			t.Fatalf("days %+v", u.Days)
		}
		if want := int(u.Free / uint64(u.Days[0].Bytes)); u.DaysLeft < want-1 || u.DaysLeft > want+1 {
			t.Errorf("%d days left, want about %d", u.DaysLeft, want)
		}
	})
}
