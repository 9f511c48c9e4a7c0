package store

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// exactStatistics asserts of every day that is online that what was counted
// with each record is what counting all records gives, and that every offered
// caller has one fate.
func exactStatistics(t testing.TB, s *Store) {
	t.Helper()
	for _, day := range s.keptDays(ordinance.Day{}, ordinance.Day{}) {
		must(t, s.change(day, func(tx *bbolt.Tx) error {
			before, err := readStatistics(tx.Bucket(bucketStatistics))
			must(t, err)
			differs, err := recount(tx)
			after, err2 := readStatistics(tx.Bucket(bucketStatistics))
			must(t, err2)
			if differs {
				t.Errorf("statistics of %v: counted %+v, records say %+v", day, before, after)
			}
			return err
		}))
	}
	list, err := s.Statistics(ordinance.Day{}, ordinance.Day{})
	must(t, err)
	for _, d := range list {
		for _, q := range d.Queues {
			answered := 0
			for _, n := range q.Waits {
				answered += n
			}
			if q.Offered != q.Answered+q.Abandoned+q.Announcement+q.Closed+q.Overflowed+q.Failed || answered != q.Answered {
				t.Errorf("%v: %+v does not add up", d.Day, q)
			}
		}
	}
}

// officeDay is a day of which every count is known.
func officeDay(day ordinance.Day) []CallRecord {
	at := func(hour, minute, second int) time.Time {
		return day.Start().Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second).UTC()
	}
	incoming := func(began time.Time, cause Cause) CallRecord {
		return CallRecord{ID: NewID(), Day: day, Direction: Incoming, Began: began, Ended: began.Add(5 * time.Minute), Cause: cause,
			Queue: "cim", Caller: Party{Number: "+48600100200", Presentation: "allowed"}, Recording: Recording{Outcome: OutcomeNone}}
	}
	served := incoming(at(8, 0, 0), CauseHangupCaller)
	served.Queued, served.Answered = at(8, 0, 17), at(8, 0, 32)
	served.Rings = []Ring{{Extension: "101", Result: "timeout"}, {Extension: "102", Result: "answered"}}
	served.Segments = []Segment{{Extension: "102", From: at(8, 0, 32), To: at(8, 3, 32)}, {Extension: "103", From: at(8, 3, 32), To: at(8, 4, 32)}}
	served.Stays = []Stay{{Queue: "cim", From: at(8, 0, 17), To: at(8, 0, 32), Result: StayAnswered}}

	moved := incoming(at(8, 10, 0), CauseHangupCalled) // overflowed from cim
	moved.Queue, moved.Queued, moved.Answered = "podatki", at(8, 10, 17), at(8, 16, 17)
	moved.Rings = []Ring{{Extension: "103", Result: "answered"}}
	moved.Segments = []Segment{{Extension: "103", From: at(8, 16, 17), To: at(8, 17, 17)}}
	moved.Stays = []Stay{{Queue: "cim", From: at(8, 10, 17), To: at(8, 15, 17), Result: StayOverflowed},
		{Queue: "podatki", From: at(8, 15, 17), To: at(8, 16, 17), Result: StayAnswered}}

	gaveUp := incoming(at(8, 20, 0), CauseAbandoned)
	gaveUp.Queued, gaveUp.Ended = at(8, 20, 17), at(8, 22, 17)
	gaveUp.Stays = []Stay{{Queue: "cim", From: at(8, 20, 17)}}
	gaveUp.Rings = []Ring{{Extension: "101", Result: "cancelled"}}

	hungUp := incoming(at(9, 0, 0), CauseAnnouncementHangup)
	closed := incoming(at(9, 1, 0), CauseClosed)
	tooMany := incoming(at(9, 2, 0), CauseQueueTimeout)
	tooMany.Queued, tooMany.Ended = at(9, 2, 17), at(9, 2, 30)
	tooMany.Stays = []Stay{{Queue: "cim", From: at(9, 2, 17), To: at(9, 2, 17), Result: StayOverflowed}}
	stopped := incoming(at(9, 3, 0), CauseShutdown)
	stopped.Queued = at(9, 3, 17)
	stopped.Stays = []Stay{{Queue: "cim", From: at(9, 3, 17)}}

	out := CallRecord{ID: NewID(), Day: day, Direction: Outgoing, Began: at(9, 10, 0), Answered: at(9, 10, 10), Ended: at(9, 11, 0), Extension: "101",
		Called: "+48600100200", Cause: CauseHangupCalled, Segments: []Segment{{Extension: "101", From: at(9, 10, 10), To: at(9, 11, 0)}},
		Recording: Recording{Outcome: OutcomeNone}}
	open := incoming(at(9, 20, 0), "")
	internal := CallRecord{ID: NewID(), Day: day, Direction: Internal, Began: at(9, 30, 0), Extension: "101", Cause: CauseBusy,
		Rings: []Ring{{Extension: "102", Result: "busy"}}, Recording: Recording{Outcome: OutcomeNone}}
	return []CallRecord{served, moved, gaveUp, hungUp, closed, tooMany, stopped, out, open, internal}
}

// TestStatistics: every count of a known day; they are the same once its
// records are gone, and then no number is in them.
func TestStatistics(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "vault")
	s := openTest(t, Config{Dir: dir})
	defer func() { closeTest(t, s) }()
	day := dueDay()
	for _, rec := range officeDay(day) {
		must(t, s.PutCall(rec))
	}
	waits := func(class int) (w [len(WaitBounds) + 1]int) { w[class] = 1; return w }
	want := DayStatistics{
		Day: day,
		Queues: []QueueHour{
			{Hour: 8, Channel: "call", Queue: "cim", Offered: 3, Answered: 1, Abandoned: 1, Overflowed: 1, WaitSum: 15 * time.Second, WaitMax: 15 * time.Second,
				AbandonedSum: 2 * time.Minute, Waits: waits(2), Talk: 4 * time.Minute},
			{Hour: 8, Channel: "call", Queue: "podatki", Offered: 1, Answered: 1, WaitSum: time.Minute, WaitMax: time.Minute, Waits: waits(4), Talk: time.Minute},
			{Hour: 9, Channel: "call", Queue: "cim", Offered: 4, Announcement: 1, Closed: 1, Overflowed: 1, Failed: 1},
		},
		Agents: []AgentHour{
			{Hour: 8, Channel: "call", Agent: "101", Offered: 2, Unanswered: 1},
			{Hour: 8, Channel: "call", Agent: "102", Offered: 1, Answered: 1, Talk: 3 * time.Minute},
			{Hour: 8, Channel: "call", Agent: "103", Offered: 1, Answered: 1, Talk: 2 * time.Minute},
			{Hour: 9, Channel: "call", Agent: "101", Outgoing: 1, Talk: 50 * time.Second},
		},
	}
	read := func(what string) {
		t.Helper()
		list, err := s.Statistics(day, day)
		must(t, err)
		if len(list) != 1 || !reflect.DeepEqual(list[0], want) {
			t.Errorf("%s: %+v\nwant %+v", what, list, want)
		}
	}
	read("from the records")
	if n := want.Queues[0].InTime(); n != 1 {
		t.Errorf("%d answered in time", n)
	}
	open, err := s.OpenCalls()
	must(t, err)
	for _, rec := range open {
		rec.Cause, rec.Revision = CauseInterrupted, 9
		must(t, s.PutCall(rec))
	}
	want.Queues[2].Offered, want.Queues[2].Failed = 5, 2
	s.settleDays(time.Now())
	want.Final = true
	read("settled")
	swept, err := s.Sweep(noCancel{}, time.Now())
	must(t, err)
	if len(swept.Days) != 1 {
		t.Fatalf("swept %+v", swept)
	}
	read("swept")
	closeTest(t, s)
	s = openTest(t, Config{Dir: dir})
	read("after a restart")
	// Central data must not name anybody.
	must(t, s.central.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketDayStatistics).ForEach(func(_, v []byte) error {
			if bytes.Contains(v, []byte("600100200")) {
				t.Errorf("statistics hold a number: %s", v)
			}
			return nil
		})
	}))
}

// TestStatisticsOfADamagedDay: what was kept when the day was settled is there
// though its database cannot be read any more.
func TestStatisticsOfADamagedDay(t *testing.T) {
	dir := filepath.Join(memoryDir(t), "vault")
	s := openTest(t, Config{Dir: dir})
	day := dueDay()
	for _, rec := range officeDay(day) {
		if rec.Cause != "" {
			must(t, s.PutCall(rec))
		}
	}
	s.settleDays(time.Now())
	want, err := s.Statistics(day, day)
	must(t, err)
	closeTest(t, s)
	overwrite(t, filepath.Join(dir, dayDir(day), "day.db"), 0, 1<<20)
	s = openTest(t, Config{Dir: dir})
	defer closeTest(t, s)
	_, err = s.Sweep(noCancel{}, time.Now())
	must(t, err)
	if got, err := s.Statistics(day, day); err != nil || len(want) != 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
}

// TestSettlingCorrectsStatistics: a day is settled with what its records say.
func TestSettlingCorrectsStatistics(t *testing.T) {
	var log bytes.Buffer
	s := openTest(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer closeTest(t, s)
	day := dueDay()
	must(t, s.PutCall(officeDay(day)[0]))
	want, err := s.Statistics(day, day)
	must(t, err)
	must(t, s.change(day, func(tx *bbolt.Tx) error {
		return putJSON(tx.Bucket(bucketStatistics), statisticsKey(8, kindQueue, "cim"), QueueHour{Offered: 99})
	}))
	s.settleDays(time.Now())
	want[0].Final = true
	if got, err := s.Statistics(day, day); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if !strings.Contains(log.String(), "statistics were not what the records say") {
		t.Errorf("the log says %s", &log)
	}
}

// TestMaximumAfterAMove: a record that leaves its day takes its wait with it.
func TestMaximumAfterAMove(t *testing.T) {
	s := openTest(t, Config{})
	defer closeTest(t, s)
	long, short := officeDay(day1)[0], officeDay(day1)[0]
	long.Stays[0].To = long.Stays[0].To.Add(time.Minute)
	must(t, s.PutCall(long))
	must(t, s.PutCall(short))
	long.Day = day1.Next(1)
	must(t, s.MoveCall(long, day1))
	exactStatistics(t, s)
	list, err := s.Statistics(day1, day1)
	must(t, err)
	if q := list[0].Queues[0]; q.WaitMax != 15*time.Second || q.Offered != 1 {
		t.Errorf("%+v", q)
	}
}

func TestStatisticsCSV(t *testing.T) {
	days := []DayStatistics{{Day: day1, Queues: []QueueHour{{Hour: 8, Channel: "call", Queue: "=cim;1", Offered: 3, Answered: 2, Abandoned: 1,
		WaitSum: 90*time.Second + 600*time.Millisecond, WaitMax: time.Minute, Waits: [len(WaitBounds) + 1]int{1, 0, 0, 0, 1}}},
		Agents: []AgentHour{{Hour: 9, Channel: "call", Agent: "101", Offered: 2, Talk: time.Hour}}}}
	var q, a bytes.Buffer
	must(t, WriteQueueCSV(&q, days))
	must(t, WriteAgentCSV(&a, days))
	wantQ := "\ufeffdzień;godzina;kanał;kolejka;zgłoszone;odebrane;porzucone w kolejce;rozłączone w komunikacie;zamknięte;przepełnienie;inne;" +
		"odebrane do 20 s;suma oczekiwania [s];najdłuższe oczekiwanie [s];oczekiwanie porzuconych [s];rozmowy [s]\r\n" +
		day1.String() + ";08:00;call;\"'=cim;1\";3;2;1;0;0;0;0;1;91;60;0;0\r\n"
	wantA := "\ufeffdzień;godzina;kanał;stanowisko;zaproponowane;odebrane;nieodebrane;odrzucone;wychodzące;rozmowy [s]\r\n" +
		day1.String() + ";09:00;call;101;2;0;0;0;0;3600\r\n"
	if q.String() != wantQ || a.String() != wantA {
		t.Errorf("%q\nwant %q\n%q\nwant %q", q.String(), wantQ, a.String(), wantA)
	}
}
