package pbx

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"centralka/desk"
	"centralka/media"
	"centralka/ordinance"
)

const (
	// noticeFirst is how long somebody has waited who is told the place for the
	// first time: whoever is served at once hears only music.
	noticeFirst = 5 * time.Second
	// noticePause is the least time from one message of a kind to the next.
	noticePause = 15 * time.Second
	// noticeLongest bounds a recording of the installer's.
	noticeLongest = time.Minute
	// noticeBreath is the silence around a sentence.
	noticeBreath = 200 * time.Millisecond
)

// phrasebook makes the messages to callers who wait, of embedded pieces. It is
// immutable.
type phrasebook struct{ pieces map[string]*media.Prompt }

func newPhrasebook() (*phrasebook, error) {
	phrases, err := ordinance.QueuePhrases()
	if err != nil {
		return nil, err
	}
	b := &phrasebook{map[string]*media.Prompt{"": media.Silent(noticeBreath)}}
	for name, p := range phrases {
		b.pieces[name] = media.NewPromptPCMA(p.ALaw)
	}
	return b, nil
}

// place names the pieces that tell a place in the queue, from 1 on.
func (b *phrasebook) place(n int) []string {
	if n > ordinance.MaxSpokenPlace {
		return []string{"place-more", ""}
	}
	return []string{"place", "place-" + strconv.Itoa(n), ""}
}

// wait names the pieces that tell an expected wait; minutes begun count whole.
func (b *phrasebook) wait(d time.Duration) []string {
	switch minutes := int((d + time.Minute - 1) / time.Minute); {
	case d < time.Minute:
		return []string{"wait", "wait-less", ""}
	case minutes > ordinance.MaxSpokenWait:
		return []string{"wait", "wait-more", ""}
	default:
		return []string{"wait", "wait-" + strconv.Itoa(minutes), ""}
	}
}

// message is the whole of a notice; patience is the recording that asks for it.
func (b *phrasebook) message(n noticeDue, patience *media.Prompt) *media.Prompt {
	names := []string{""}
	if n.place > 0 {
		names = append(names, b.place(n.place)...)
		if n.known {
			names = append(names, b.wait(n.wait)...)
		}
	}
	var pieces []*media.Prompt
	for _, name := range names {
		pieces = append(pieces, b.pieces[name])
	}
	if n.patience {
		if patience == nil {
			patience = b.pieces["patience"]
		}
		pieces = append(pieces, patience, b.pieces[""])
	}
	return media.JoinPrompts(pieces...)
}

// readPatience loads the installer's recording at file.
func readPatience(file string) (*media.Prompt, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := media.ReadPrompt(f)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", file, err)
	case p.Duration() > noticeLongest:
		return nil, fmt.Errorf("%s: %v is longer than %v", file, p.Duration(), noticeLongest)
	}
	return p, nil
}

// CheckPeriodic says why a file cannot be the periodic_file of a queue.
func CheckPeriodic(file string) error {
	_, err := readPatience(file)
	return err
}

// readPatiences loads those of all queues, by file. What cannot be read is missing.
func readPatiences(queues []QueueConfig) (map[string]*media.Prompt, error) {
	list := map[string]*media.Prompt{}
	var errs []error
	for _, q := range queues {
		if q.PeriodicFile == "" || list[q.PeriodicFile] != nil {
			continue
		}
		p, err := readPatience(q.PeriodicFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("periodic_file of queue %q: %w", q.Name, err))
			continue
		}
		list[q.PeriodicFile] = p
	}
	return list, errors.Join(errs...)
}

// noticeDue is the queue's decision that a caller is told something.
type noticeDue struct {
	q        *queue
	place    int // 0: nothing of it
	wait     time.Duration
	known    bool // wait is
	patience bool
}

func (ev noticeDue) on(c *call) {
	in, ok := c.script.(*incoming)
	if !ok || c.over || in.queue != ev.q || !in.waits() {
		return
	}
	live := c.s.config()
	in.tell(c.s.phrases.message(ev, live.patience[ev.q.config().PeriodicFile]))
}

// telling is the message that a waiting caller hears now, instead of the music, and
// the one that comes after it.
type telling struct {
	id    media.PlayID
	later *media.Prompt
}

// waits reports whether the caller is in a queue and nobody has answered.
func (c *incoming) waits() bool {
	return c.queue != nil && !c.talking && c.prelude == nil && c.farewell == 0
}

// tell plays a message, after the present one. Who cannot hear it now is not told:
// the next one has newer numbers.
func (c *incoming) tell(p *media.Prompt) {
	switch {
	case c.a.stream == nil || c.a.params.Direction&media.SendOnly == 0:
	case c.telling.id != 0:
		c.telling.later = p
	default:
		c.telling.id = c.a.stream.Play(p, false)
	}
}

// told takes the end of a play; false if it was no message.
func (c *incoming) told(p media.Played) bool {
	if c.telling.id == 0 || p.Play != c.telling.id {
		return false
	}
	next := c.telling.later
	c.telling = telling{}
	if !c.waits() {
		return true
	}
	if next != nil && p.Complete {
		c.tell(next)
	}
	if c.telling.id == 0 {
		c.music() // during a hold it waits for its end
	}
	return true
}

// notify tells those whose time has come, and returns when to look again at the
// latest.
func (q *queue) notify(now time.Time) time.Duration {
	next, cfg := time.Hour, q.config()
	for _, w := range q.waiting {
		ev := noticeDue{q: q}
		told, at := due(&w.told, w.came.Add(noticeFirst), cfg.AnnouncePosition, now)
		next = min(next, at)
		// Counted from the first place that is told, so that both fall together.
		ev.patience, at = due(&w.asked, w.came.Add(noticeFirst+cfg.Periodic), cfg.Periodic, now)
		next = min(next, at)
		if told {
			ev.place = w.ticket.Place()
		}
		if ev.place > 0 && cfg.AnnounceWait && q.attended(cfg) {
			ev.wait, ev.known = q.expect(ev.place)
		}
		if ev.place > 0 || ev.patience {
			w.c.post(ev)
		}
	}
	return next
}

// due reports whether something is that comes at first and then at this interval,
// 0 being never; last is when it was. It returns how long it takes to the next.
func due(last *time.Time, first time.Time, every time.Duration, now time.Time) (bool, time.Duration) {
	if every <= 0 {
		return false, time.Hour
	}
	at := first
	if !last.IsZero() {
		at = last.Add(every)
	}
	if left := at.Sub(now); left > 0 {
		return false, left
	}
	if now.Sub(at) >= every {
		at = now // the machine slept, or the interval is a new one
	}
	*last = at
	return true, at.Add(every).Sub(now)
}

// attended reports whether any of its agents takes calls, now or after the present
// one.
func (q *queue) attended(cfg QueueConfig) bool {
	return slices.ContainsFunc(q.pool.Snapshot(), func(a desk.AgentStatus) bool {
		return a.State != desk.Away && slices.Contains(cfg.Members, string(a.ID))
	})
}
