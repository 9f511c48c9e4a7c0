package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"centralka/ordinance"
)

// DayStatistics counts what happened on one Warsaw day, without a number or a
// name of anybody: it stays when the day's records go.
//
// It is counted in the transaction that stores a call's final record, so it is
// never more or less than the records say, whatever crashes. When the day is
// settled it is counted anew from all records and put into centralka.db, and
// once more when the day is swept.
type DayStatistics struct {
	Day ordinance.Day
	// Final: the day is over and none of its calls goes on.
	Final  bool `json:"-"`
	Queues []QueueHour
	Agents []AgentHour
}

// QueueHour counts the calls of one queue that began in one hour of the
// Warsaw clock; of the hour that is shown twice in autumn there is one. Queue ""
// is calls straight to an extension. A caller who overflows, or comes back to a
// queue, is offered again. Always
//
//	Offered = Answered + Abandoned + Announcement + Closed + Overflowed + Failed.
type QueueHour struct {
	Hour    int
	Channel string // "call"; chats will have their own
	Queue   string

	Offered      int
	Answered     int
	Abandoned    int // hung up while waiting
	Announcement int // hung up in the announcement (S1.4-d)
	Closed       int // heard that it is closed
	Overflowed   int // waited too long, or found the queue full
	Failed       int // anything else that ended the wait

	WaitSum      time.Duration // of the answered
	WaitMax      time.Duration // of the answered
	AbandonedSum time.Duration // waits of the abandoned
	Waits        [len(WaitBounds) + 1]int
	Talk         time.Duration
}

// WaitBounds are the upper bounds of the classes of QueueHour.Waits, which
// counts the answered by their wait; the last class has none.
var WaitBounds = [...]time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}

// serviceClasses is how many classes of WaitBounds are within the service level
// of 20 s.
const serviceClasses = 3

// InTime counts those who were answered within 20 s.
func (q QueueHour) InTime() (n int) {
	for _, c := range q.Waits[:serviceClasses] {
		n += c
	}
	return n
}

// AgentHour counts what one phone did with the calls that began in an hour.
type AgentHour struct {
	Hour    int
	Channel string
	Agent   string

	Offered    int // its phone rang for a call from outside
	Answered   int
	Unanswered int // rang until the timeout
	Refused    int // busy, declined, unreachable
	Outgoing   int // calls it placed that were answered
	Talk       time.Duration
}

// Add sums up, for totals of a day or a queue; Hour, Channel and Queue stay.
func (q *QueueHour) Add(o QueueHour) { q.add(o, 1) }

// Add sums up; Hour, Channel and Agent stay.
func (a *AgentHour) Add(o AgentHour) { a.add(o, 1) }

func (q *QueueHour) add(o QueueHour, sign int) {
	q.Offered += sign * o.Offered
	q.Answered += sign * o.Answered
	q.Abandoned += sign * o.Abandoned
	q.Announcement += sign * o.Announcement
	q.Closed += sign * o.Closed
	q.Overflowed += sign * o.Overflowed
	q.Failed += sign * o.Failed
	q.WaitSum += time.Duration(sign) * o.WaitSum
	q.AbandonedSum += time.Duration(sign) * o.AbandonedSum
	q.Talk += time.Duration(sign) * o.Talk
	for i := range q.Waits {
		q.Waits[i] += sign * o.Waits[i]
	}
	if sign > 0 {
		q.WaitMax = max(q.WaitMax, o.WaitMax)
	}
}

func (a *AgentHour) add(o AgentHour, sign int) {
	a.Offered += sign * o.Offered
	a.Answered += sign * o.Answered
	a.Unanswered += sign * o.Unanswered
	a.Refused += sign * o.Refused
	a.Outgoing += sign * o.Outgoing
	a.Talk += time.Duration(sign) * o.Talk
}

// share is what one record adds to the statistics of its day.
type share struct {
	queues map[string]QueueHour // by queue
	agents map[string]AgentHour // by extension
	hour   int
}

const channelCall = "call"

// shareOf counts a record: nothing until it has ended, and nothing of internal
// calls.
func shareOf(rec *CallRecord) share {
	sh := share{queues: map[string]QueueHour{}, agents: map[string]AgentHour{}}
	if rec.Cause == "" || rec.Direction == Internal {
		return sh
	}
	sh.hour = hourOf(rec)
	if rec.Direction == Incoming {
		sh.countQueues(rec)
	}
	for _, ring := range rec.Rings {
		a := sh.agents[ring.Extension]
		a.Offered++
		switch ring.Result {
		case "answered":
			a.Answered++
		case "timeout":
			a.Unanswered++
		case "busy", "declined", "unreachable":
			a.Refused++
		}
		sh.agents[ring.Extension] = a
	}
	if rec.Direction == Outgoing && rec.Extension != "" && !rec.Answered.IsZero() {
		a := sh.agents[rec.Extension]
		a.Outgoing++
		sh.agents[rec.Extension] = a
	}
	for _, seg := range rec.Segments {
		if seg.Extension == "" {
			continue
		}
		a := sh.agents[seg.Extension]
		a.Talk += lasted(seg.From, seg.To)
		sh.agents[seg.Extension] = a
	}
	maps.DeleteFunc(sh.agents, func(_ string, a AgentHour) bool { return a == AgentHour{} })
	return sh
}

func (sh *share) countQueues(rec *CallRecord) {
	stays := rec.staysInQueues()
	answered := rec.Queue
	for _, st := range stays {
		q := sh.queues[st.Queue]
		q.Offered++
		wait := lasted(st.From, st.To)
		switch st.Result {
		case StayAnswered:
			q.Answered++
			q.WaitSum += wait
			q.WaitMax = max(q.WaitMax, wait)
			q.Waits[waitClass(wait)]++
			answered = st.Queue
		case StayAbandoned:
			q.Abandoned++
			q.AbandonedSum += wait
		case StayOverflowed:
			q.Overflowed++
		default:
			q.Failed++
		}
		sh.queues[st.Queue] = q
	}
	if len(stays) == 0 {
		q := sh.queues[rec.Queue]
		q.Offered++
		switch {
		case !rec.Answered.IsZero(): // straight to an extension
			q.Answered++
			var wait time.Duration // its announcement apart
			if rec.Announcement != nil && !rec.Announcement.Ended.IsZero() {
				wait = lasted(rec.Announcement.Ended, rec.Answered)
			}
			q.WaitSum += wait
			q.WaitMax = max(q.WaitMax, wait)
			q.Waits[waitClass(wait)]++
		case rec.Cause == CauseAnnouncementHangup:
			q.Announcement++
		case rec.Cause == CauseClosed:
			q.Closed++
		case rec.Cause == CauseAbandoned:
			q.Abandoned++
		default:
			q.Failed++
		}
		sh.queues[rec.Queue] = q
	}
	q, listed := sh.queues[answered]
	for _, seg := range rec.Segments {
		q.Talk += lasted(seg.From, seg.To)
	}
	if listed || q.Talk > 0 {
		sh.queues[answered] = q
	}
}

// hourOf is the hour of the Warsaw clock in which a call of a day counts: that
// of its beginning, or, if it was moved to the next day, of its answer.
func hourOf(rec *CallRecord) int {
	at := rec.Began
	if ordinance.DayOf(at) != rec.Day && !rec.Answered.IsZero() {
		at = rec.Answered
	}
	return at.In(ordinance.Warsaw).Hour()
}

func lasted(from, to time.Time) time.Duration {
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return max(0, to.Sub(from))
}

func waitClass(wait time.Duration) int {
	for i, bound := range WaitBounds {
		if wait <= bound {
			return i
		}
	}
	return len(WaitBounds)
}

// Keys of bucketStatistics: hour, kind, name.
func statisticsKey(hour int, kind byte, name string) []byte {
	return append([]byte{byte(hour), kind}, name...)
}

const (
	kindQueue byte = 'q'
	kindAgent byte = 'a'
)

// countChange brings the statistics from what they were with before to what
// they are with after; either may be nil.
func countChange(tx *bbolt.Tx, before, after *CallRecord) error {
	var was, is share
	if before != nil {
		was = shareOf(before)
	}
	if after != nil {
		is = shareOf(after)
	}
	if was.hour == is.hour && maps.Equal(was.queues, is.queues) && maps.Equal(was.agents, is.agents) {
		return nil
	}
	b := tx.Bucket(bucketStatistics)
	for name, q := range was.queues {
		cell, err := readCell[QueueHour](b, statisticsKey(was.hour, kindQueue, name))
		if err != nil {
			return err
		}
		if q.Answered > 0 && q.WaitMax == cell.WaitMax {
			return recountWithout(tx, before.ID, after) // a maximum cannot be taken back
		}
	}
	if err := applyShare(b, was, -1); err != nil {
		return err
	}
	return applyShare(b, is, 1)
}

// recountWithout counts a day whose record id is about to be replaced by after.
func recountWithout(tx *bbolt.Tx, id ID, after *CallRecord) error {
	return writeStatistics(tx, func(count func(*CallRecord)) error {
		if after != nil {
			count(after)
		}
		return eachCall(tx, func(rec *CallRecord) {
			if rec.ID != id {
				count(rec)
			}
		})
	})
}

// recount counts a day's records anew and reports whether that differs from
// what was counted.
func recount(tx *bbolt.Tx) (differs bool, err error) {
	before, err := readStatistics(tx.Bucket(bucketStatistics))
	if err != nil {
		before, differs = DayStatistics{}, true // what cannot be read is made anew
	}
	err = writeStatistics(tx, func(count func(*CallRecord)) error { return eachCall(tx, count) })
	if err != nil {
		return false, err
	}
	after, err := readStatistics(tx.Bucket(bucketStatistics))
	return differs || !slices.Equal(before.Queues, after.Queues) || !slices.Equal(before.Agents, after.Agents), err
}

func eachCall(tx *bbolt.Tx, do func(*CallRecord)) error {
	return tx.Bucket(bucketCalls).ForEach(func(k, v []byte) error {
		var rec CallRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return fmt.Errorf("record of call %x: %w", k, err)
		}
		do(&rec)
		return nil
	})
}

// writeStatistics replaces the statistics by those of the records that each
// hands to count.
func writeStatistics(tx *bbolt.Tx, each func(count func(*CallRecord)) error) error {
	queues, agents := map[string]QueueHour{}, map[string]AgentHour{} // by key
	err := each(func(rec *CallRecord) {
		sh := shareOf(rec)
		for name, q := range sh.queues {
			key := string(statisticsKey(sh.hour, kindQueue, name))
			cell := queues[key]
			cell.add(q, 1)
			queues[key] = cell
		}
		for name, a := range sh.agents {
			key := string(statisticsKey(sh.hour, kindAgent, name))
			cell := agents[key]
			cell.add(a, 1)
			agents[key] = cell
		}
	})
	if err != nil {
		return err
	}
	if err := tx.DeleteBucket(bucketStatistics); err != nil {
		return err
	}
	b, err := tx.CreateBucket(bucketStatistics)
	if err != nil {
		return err
	}
	for key, cell := range queues {
		if err := putJSON(b, []byte(key), cell); err != nil {
			return err
		}
	}
	for key, cell := range agents {
		if err := putJSON(b, []byte(key), cell); err != nil {
			return err
		}
	}
	return nil
}

func applyShare(b *bbolt.Bucket, sh share, sign int) error {
	for name, q := range sh.queues {
		key := statisticsKey(sh.hour, kindQueue, name)
		cell, err := readCell[QueueHour](b, key)
		if err != nil {
			return err
		}
		cell.add(q, sign)
		if err := putCell(b, key, cell, cell == QueueHour{WaitMax: cell.WaitMax}); err != nil {
			return err
		}
	}
	for name, a := range sh.agents {
		key := statisticsKey(sh.hour, kindAgent, name)
		cell, err := readCell[AgentHour](b, key)
		if err != nil {
			return err
		}
		cell.add(a, sign)
		if err := putCell(b, key, cell, cell == AgentHour{}); err != nil {
			return err
		}
	}
	return nil
}

func readCell[T any](b *bbolt.Bucket, key []byte) (cell T, err error) {
	if text := b.Get(key); text != nil {
		err = getJSON(text, &cell)
	}
	return cell, err
}

func putCell(b *bbolt.Bucket, key []byte, cell any, empty bool) error {
	if empty {
		return b.Delete(key)
	}
	return putJSON(b, key, cell)
}

// readStatistics reads a day's bucket; nil is none.
func readStatistics(b *bbolt.Bucket) (st DayStatistics, err error) {
	if b == nil {
		return st, nil
	}
	err = b.ForEach(func(k, v []byte) error {
		if len(k) < 2 {
			return fmt.Errorf("statistics have a key %x", k)
		}
		hour, name := int(k[0]), string(bytes.Clone(k[2:]))
		switch k[1] {
		case kindQueue:
			var cell QueueHour
			if err := getJSON(v, &cell); err != nil {
				return err
			}
			cell.Hour, cell.Channel, cell.Queue = hour, channelCall, name
			st.Queues = append(st.Queues, cell)
		case kindAgent:
			var cell AgentHour
			if err := getJSON(v, &cell); err != nil {
				return err
			}
			cell.Hour, cell.Channel, cell.Agent = hour, channelCall, name
			st.Agents = append(st.Agents, cell)
		default:
			return fmt.Errorf("statistics have a key %x", k)
		}
		return nil
	})
	slices.SortFunc(st.Queues, func(a, b QueueHour) int {
		return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Queue, b.Queue))
	})
	slices.SortFunc(st.Agents, func(a, b AgentHour) int {
		return cmp.Or(cmp.Compare(a.Hour, b.Hour), cmp.Compare(a.Agent, b.Agent))
	})
	return st, err
}

// Statistics returns the statistics of the days from..to on which there was
// anything, the oldest first: of days that are online from their records, of
// others what stayed. A zero day leaves that end open.
func (s *Store) Statistics(from, to ordinance.Day) (list []DayStatistics, err error) {
	lines := s.selectLines(func(l retentionLine) bool {
		return (from.IsZero() || l.Day.Compare(from) >= 0) && (to.IsZero() || l.Day.Compare(to) <= 0)
	})
	for _, line := range lines {
		st, err := s.statisticsOf(line.Day)
		if err != nil {
			return nil, fmt.Errorf("statistics of %v: %w", line.Day, err)
		}
		st.Day, st.Final = line.Day, line.Settled || line.State != stateKept
		if len(st.Queues)+len(st.Agents) > 0 {
			list = append(list, st)
		}
	}
	return list, nil
}

func (s *Store) statisticsOf(day ordinance.Day) (st DayStatistics, err error) {
	err = s.look(day, func(tx *bbolt.Tx) error {
		st, err = readStatistics(tx.Bucket(bucketStatistics))
		return err
	})
	if err == nil || !errors.Is(err, ErrGone) && !errors.Is(err, ErrNotFound) {
		return st, err
	}
	err = s.central.view(func(tx *bbolt.Tx) error {
		if text := tx.Bucket(bucketDayStatistics).Get([]byte(day.String())); text != nil {
			return getJSON(text, &st)
		}
		return nil
	})
	return st, err
}

// keepStatistics puts a day's statistics where they outlive it.
func keepStatistics(central *bbolt.Tx, day ordinance.Day, st DayStatistics) error {
	st.Day = day
	return putJSON(central.Bucket(bucketDayStatistics), []byte(day.String()), st)
}
