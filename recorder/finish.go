package recorder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"centralka/media"
	"centralka/ordinance"
	"centralka/store"
)

// job is a call to be finished: its journal rendered, its record closed.
type job struct {
	day   ordinance.Day
	id    store.ID
	live  *Recording        // of this run; nil: left by the last one
	open  *store.CallRecord // left open by the last run, maybe under another day
	bare  bool              // left without a journal
	due   time.Time
	tries int
}

// leftBehind is what the last run did not finish.
type leftBehind struct {
	journals []store.JournalRef
	open     []store.CallRecord
	err      error
}

func findLeft(s *store.Store) (l leftBehind) {
	if l.journals, l.err = s.Journals(); l.err != nil {
		return l
	}
	l.open, l.err = s.OpenCalls()
	return l
}

// jobs lists journals first, then open calls that have none.
func (l *leftBehind) jobs() (jobs []*job) {
	recorded := make(map[store.ID]*job)
	for _, ref := range l.journals {
		j := &job{day: ref.Day, id: ref.ID}
		recorded[ref.ID] = j
		jobs = append(jobs, j)
	}
	for _, rec := range l.open {
		if j := recorded[rec.ID]; j != nil {
			j.open = &rec
			continue
		}
		jobs = append(jobs, &job{day: rec.Day, id: rec.ID, open: &rec, bare: true})
	}
	return jobs
}

// renderJobs is a worker.
func (r *Recorder) renderJobs() {
	for {
		r.mu.Lock()
		for len(r.jobs) == 0 && !(r.closed && len(r.deferred) == 0) {
			r.work.Wait()
		}
		if len(r.jobs) == 0 {
			r.mu.Unlock()
			return
		}
		j := r.jobs[0]
		r.jobs = slices.Delete(r.jobs, 0, 1)
		r.busy++
		r.mu.Unlock()

		var outcome store.Outcome
		err := r.try(rendering, func() (err error) {
			outcome, err = r.finish(j)
			if errors.Is(err, store.ErrGone) { // its day is over: nothing is owed any more
				return nil
			}
			return err
		})

		r.mu.Lock()
		r.busy--
		switch {
		case err == nil && outcome != "":
			r.status.Outcomes[outcome]++
			if j.live == nil {
				r.status.Recovered++
			}
		case err != nil && !r.stopping:
			j.due = time.Now().Add(min(retryFirst<<min(j.tries, 10), retryMost))
			j.tries++
			r.deferred = append(r.deferred, j)
			wake(r.worry)
		}
		r.work.Broadcast()
		r.mu.Unlock()
	}
}

// finish renders a call's journal and closes its record. An error means that
// nothing is lost and that it can be tried again. No outcome and no error
// means that there was nothing to do.
func (r *Recorder) finish(j *job) (store.Outcome, error) {
	if c := j.live; c != nil {
		c.filing.Lock()
		defer c.filing.Unlock()
		c.mu.Lock()
		rec := c.rec
		c.mu.Unlock()
		if err := c.settle(rec); err != nil {
			return "", err
		}
		return r.conclude(j, rec, c.journal != nil)
	}
	if j.bare {
		return r.abandon(*j.open)
	}
	return r.salvage(j)
}

// salvage concludes a call of which a journal was left.
func (r *Recorder) salvage(j *job) (store.Outcome, error) {
	s := r.cfg.Store
	o, err := outlineOf(s.ReadJournal(j.day, j.id))
	if err != nil {
		return "", err
	}
	rec, err := s.Call(j.day, j.id)
	unknown := errors.Is(err, store.ErrNotFound)
	switch {
	case err != nil && !unknown:
		return "", err
	case !unknown && rec.Recording.SHA256 != "", // only its removal was missing
		!unknown && rec.Recording.Outcome != "" && o.packets == 0,
		unknown && j.open == nil && o.wall.IsZero() && o.packets == 0: // a probe
		return "", s.DropJournal(j.day, j.id)
	case unknown && j.open != nil:
		rec = *j.open
		rec.Day = j.day
		if err := s.MoveCall(rec, j.open.Day); err != nil {
			return "", err
		}
	}
	if o.record != nil {
		var told store.CallRecord
		if err := json.Unmarshal(o.record, &told); err != nil {
			r.cfg.Log.Warn("recorder: journal has an unreadable record", "rec", j.id, "err", err)
		} else if unknown && j.open == nil || told.Cause != "" { // none is stored, or not how it ended
			rec = told
		}
	}
	rec.ID, rec.Day = j.id, j.day
	if o.wall.IsZero() {
		o.wall = rec.Recording.Began
	}
	if rec.Began.IsZero() {
		rec.Began = o.wall
	}
	if rec.Began.IsZero() {
		rec.Began = j.day.Start()
	}
	if rec.Recording.Began.IsZero() {
		rec.Recording.Began = rec.Began
	}
	interrupt(&rec, rec.Recording.Began.Add(time.Duration(o.length())*time.Microsecond))
	return r.conclude(j, rec, true)
}

// abandon closes a call that the last run left open without a journal.
func (r *Recorder) abandon(rec store.CallRecord) (store.Outcome, error) {
	answered := !rec.Answered.IsZero()
	switch {
	case rec.Recording.Outcome != "": // it is committed, only the cause is missing
	case rec.Direction == store.Internal:
		rec.Recording = store.Recording{Outcome: store.OutcomeNone, Reason: "internal calls are not recorded"}
	case !answered:
		rec.Recording = store.Recording{Outcome: store.OutcomeNone, Reason: "the switch stopped before the call was answered"}
	default:
		rec.Recording = store.Recording{Outcome: store.OutcomeFailed, Reason: "the switch stopped in the call and left no journal"}
	}
	interrupt(&rec, latest(&rec))
	return r.commit(rec)
}

// conclude renders the journal of a call, if there is one, and commits rec
// with the outcome.
func (r *Recorder) conclude(j *job, rec store.CallRecord, journal bool) (store.Outcome, error) {
	s := r.cfg.Store
	o := outline{end: -1}
	if journal {
		var err error
		if o, err = outlineOf(s.ReadJournal(j.day, j.id)); err != nil {
			return "", err
		}
	}
	if c := j.live; c != nil {
		c.facts(&o)
	}
	rec.Recording = store.Recording{Began: rec.Recording.Began}
	rec.Recording.Outcome, rec.Recording.Reason = judge(&o, j.live == nil)
	if c := j.live; c != nil && rec.Recording.Outcome == store.OutcomeFailed && c.err != nil {
		rec.Recording.Reason += ": " + c.err.Error()
	}
	label(&rec, o.holds)
	if rec.Recording.Outcome == store.OutcomeFailed {
		rec.Recording.Counts.Dropped, rec.Recording.Counts.WriteFails = o.dropped, o.fails
		rec.Recording.Counts.TornBytes = o.torn
		outcome, err := r.commit(rec)
		switch {
		case err != nil || !journal:
		case o.torn > 0:
			err = s.Quarantine(j.day, store.KindJournal, j.id)
		default:
			err = s.DropJournal(j.day, j.id)
		}
		return outcome, err
	}

	var out rendered
	file, err := s.PutFile(j.day, j.id, func(w io.Writer) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = &renderPanic{p, debug.Stack()}
			}
		}()
		out, err = render(w, s.ReadJournal(j.day, j.id), &o)
		return err
	})
	if p, ok := errors.AsType[*renderPanic](err); ok { // a fault of ours: keep the journal, do not try for ever
		r.cfg.Log.Error("recorder: rendering panicked", "rec", j.id, "err", p, "stack", string(p.stack))
		if err := s.Quarantine(j.day, store.KindJournal, j.id); err != nil {
			return "", err
		}
		rec.Recording.Outcome, rec.Recording.Reason = store.OutcomeFailed, "rendering failed; the journal is in quarantine"
		return r.commit(rec)
	}
	if err != nil {
		return "", err
	}
	rec.Recording.Duration = out.duration
	rec.Recording.Size, rec.Recording.SHA256 = file.Size, file.SHA256
	rec.Recording.Counts = out.counts
	rec.Recording.Peaks = out.peaks
	if lost := out.counts.Unplaced; rec.Recording.Outcome == store.OutcomeOK && max(lost[citizen], lost[office]) > tooMuchUnplaced {
		rec.Recording.Outcome = store.OutcomeDegraded
		rec.Recording.Reason = fmt.Sprintf("%d ms of the citizen's voice and %d ms of the office's were read too late to be kept whole",
			lost[citizen]*1000/media.SampleRate, lost[office]*1000/media.SampleRate)
	}
	return r.commit(rec)
}

func (r *Recorder) commit(rec store.CallRecord) (store.Outcome, error) {
	if err := r.cfg.Store.CommitRecording(rec); err != nil {
		return "", err
	}
	if o := rec.Recording.Outcome; o == store.OutcomeFailed || o == store.OutcomeDegraded {
		r.cfg.Log.Warn("recorder: recording is "+string(o), "rec", rec.ID, "cause", rec.Recording.Reason)
	}
	return rec.Recording.Outcome, nil
}

// renderPanic is a panic of the renderer, caught.
type renderPanic struct {
	value any
	stack []byte
}

func (p *renderPanic) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// facts corrects an outline by what the recording itself knows: marks may be
// among the blocks that the disk refused. The writer is done with c.
func (c *Recording) facts(o *outline) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.end = c.end
	o.last = max(o.last, c.end)
	o.holds = c.holds
	o.dropped = c.tally()
	o.fails = c.fails
}

// tooMuchUnplaced is how many samples of a lane may be without a place before
// the recording counts as degraded: a tenth of a second. Packets that the
// network delayed for long cost a few; a machine that stood still costs more.
const tooMuchUnplaced = media.SampleRate / 10

// judge tells how a recording went, and why.
func judge(o *outline, left bool) (store.Outcome, string) {
	dropped := o.dropped[citizen] + o.dropped[office]
	cut := left && o.end < 0
	switch {
	case o.packets == 0 && (dropped > 0 || o.torn > 0 || o.fails > 0):
		return store.OutcomeFailed, "nothing could be written"
	case cut && o.last == 0:
		return store.OutcomeFailed, "the switch stopped before anything was written"
	case cut:
		return store.OutcomeDegraded, "the switch stopped in the call; the recording ends with what had been written"
	case o.torn > 0:
		return store.OutcomeDegraded, fmt.Sprintf("%d bytes of the journal could not be read", o.torn)
	case dropped > 0:
		return store.OutcomeDegraded, fmt.Sprintf("%d packets arrived and could not be kept", dropped)
	case o.packets == 0:
		return store.OutcomeOK, "no packet came from either side"
	}
	return store.OutcomeOK, ""
}

// label sees to it that each stretch that is silent for a hold is in the
// record, which tells who held.
func label(rec *store.CallRecord, holds []span) {
	const near = time.Second
	rec.Holds = slices.Clone(rec.Holds)
	for _, h := range holds {
		from := rec.Recording.Began.Add(time.Duration(h.from) * time.Microsecond)
		to := rec.Recording.Began.Add(time.Duration(h.to) * time.Microsecond)
		i := slices.IndexFunc(rec.Holds, func(l store.Hold) bool { return l.From.Sub(from).Abs() < near })
		if i < 0 {
			rec.Holds = append(rec.Holds, store.Hold{From: from, To: to})
		} else if rec.Holds[i].To.IsZero() {
			rec.Holds[i].To = to
		}
	}
}

// interrupt closes what is still open in the record of a call that ended when
// the switch died.
func interrupt(rec *store.CallRecord, at time.Time) {
	if rec.Cause == "" {
		rec.Cause = store.CauseInterrupted
	}
	if rec.Ended.IsZero() {
		rec.Ended = at
	}
	for i := range rec.Segments {
		if s := &rec.Segments[i]; s.To.IsZero() {
			s.To = rec.Ended
		}
	}
	for i := range rec.Rings {
		if s := &rec.Rings[i]; s.To.IsZero() {
			s.To = rec.Ended
		}
	}
	for i := range rec.Holds {
		if s := &rec.Holds[i]; s.To.IsZero() {
			s.To = rec.Ended
		}
	}
}

// latest is the last instant that a record knows of.
func latest(rec *store.CallRecord) time.Time {
	at := rec.Began
	see := func(times ...time.Time) {
		for _, t := range times {
			if t.After(at) {
				at = t
			}
		}
	}
	see(rec.Queued, rec.Answered, rec.Recording.Began)
	if a := rec.Announcement; a != nil {
		see(a.Started, a.Ended)
	}
	for _, s := range rec.Rings {
		see(s.From, s.To)
	}
	for _, s := range rec.Segments {
		see(s.From, s.To)
	}
	for _, h := range rec.Holds {
		see(h.From, h.To)
	}
	return at
}
