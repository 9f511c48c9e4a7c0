package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"centralka/ordinance"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

const (
	alike       = 0.9                    // similarity of a line that was heard
	quiet       = -50.0                  // dBFS below which a lane is silent
	ringSlack   = 100 * time.Millisecond // by which two goroutines may see one instant apart
	delay       = time.Second            // from a mouth to an ear, at most
	lengthSlack = 40 * time.Millisecond  // |file - conversation|, S1.3-l
	renderTime  = 10 * time.Second       // until every recording is in the vault
)

// finding is one expected thing: whether it happened, and what shows it.
type finding struct {
	scene string // "" for the whole
	rule  string
	ok    bool
	why   string
}

// inspection is what the checks look at, and what they find. One goroutine owns
// it.
type inspection struct {
	c            *city
	out          string // where copies go
	announcement []int16
	records      map[string]store.CallRecord // by scene
	copies       []recordingCopy
	findings     []finding
}

func (x *inspection) check(scene, rule string, ok bool, why string, args ...any) {
	x.findings = append(x.findings, finding{scene, rule, ok, fmt.Sprintf(why, args...)})
}

// passed reports whether everything expected happened.
func passed(findings []finding) bool {
	return len(findings) > 0 && !slices.ContainsFunc(findings, func(f finding) bool { return !f.ok })
}

// inspect holds what the parties heard and what the vault keeps against what had
// to happen.
func (c *city) inspect(ctx context.Context, out string, pages []page) (*inspection, error) {
	x := &inspection{c: c, out: out, records: map[string]store.CallRecord{}}
	law, err := ordinance.Statutory()
	if err != nil {
		return nil, err
	}
	wav, err := pbxtest.ReadWAV(bytes.NewReader(law.WAV))
	if err != nil {
		return nil, err
	}
	x.announcement = wav.PCM
	if err := x.collect(ctx); err != nil {
		return nil, err
	}
	for _, s := range c.scenes {
		rec, found := x.records[s.name]
		switch {
		case s.err != nil:
			x.check(s.name, "the call went as planned", false, "%v", s.err)
			continue
		case !found:
			x.check(s.name, "there is a record of the call", false, "the vault has none")
			continue
		}
		if s.outgoing == "" {
			x.announced(s, rec)
		}
		if s.recorded() {
			x.conversed(s)
		}
		x.recorded(s, rec)
		if s.recorded() {
			x.listened(s, rec)
		}
	}
	x.whole(ctx, pages)
	return x, nil
}

// collect waits until the records of our calls are complete and sorts them by
// scene.
func (x *inspection) collect(ctx context.Context) error {
	late := time.After(renderTime)
	for {
		clear(x.records)
		open := 0
		day := ordinance.DayOf(x.c.began)
		for rec, err := range x.c.sys.store.CallsByDay(day, day.Next(1)) {
			if err != nil {
				return fmt.Errorf("read the call records: %w", err)
			}
			if rec.Began.Before(x.c.began) {
				continue // of an earlier demo in the same folder
			}
			if rec.Cause == "" || rec.Recording.Outcome == "" {
				open++
			}
			for _, s := range x.c.scenes {
				if rec.Direction == store.Outgoing && s.outgoing != "" ||
					rec.Direction == store.Incoming && s.outgoing == "" && (rec.Caller.Number == s.resident || s.withheld && !rec.Caller.Identifiable()) {
					x.records[s.name] = rec
				}
			}
		}
		if open == 0 && len(x.records) == len(x.c.scenes) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return nil // the checks say what is missing
		case <-time.After(watchEvery):
		}
	}
}

// announced: by ear, each caller heard the announcement first; and no phone
// rang before its end (Zarz. 284/17 §1 ust. 4).
func (x *inspection) announced(s *scene, rec store.CallRecord) {
	heard := s.citizen.Heard()
	if s.leaves > 0 {
		begin := x.announcement[:min(len(x.announcement), int((s.leaves-2*time.Second)*pbxtest.Rate/time.Second))]
		part := follow(heard.PCM, begin)
		x.check(s.name, "heard only the announcement's beginning", part.whole && len(heard.PCM) < len(x.announcement), "hung up after %s of %s", seconds(lengthOf(heard.PCM)), seconds(lengthOf(x.announcement)))
		x.check(s.name, "no phone rang", s.phone == nil && len(rec.Rings) == 0, "%s tried", counted(len(rec.Rings), "phone"))
		return
	}
	m := follow(heard.PCM, x.announcement)
	x.check(s.name, "heard the whole announcement", m.whole, "%s, %s", seconds(m.to-m.from), m)
	end := heard.Start.Add(m.to)
	first := s.phone.At(pbxtest.Dialling).Sub(end)
	byRecord := rec.Announcement != nil && rec.Announcement.Complete && len(rec.Rings) > 0 && !rec.Rings[0].From.Before(rec.Announcement.Ended)
	x.check(s.name, "no phone rang before its end", m.whole && byRecord && first > -ringSlack, "the first rang %d ms after it", first.Milliseconds())
	waiting := heard.Between(end.Add(ringSlack), s.phone.At(pbxtest.Answered))
	if s.withheld {
		x.c.mu.Lock()
		queued := x.c.queued[s.name]
		x.c.mu.Unlock()
		x.check(s.name, "waited for a free agent, with music", queued && pbxtest.Level(waiting) > quiet, "%s of it", seconds(lengthOf(waiting)))
	} else {
		x.check(s.name, "heard music while the phone rang", pbxtest.Level(waiting) > quiet, "%s of it", seconds(lengthOf(waiting)))
	}
}

// conversed: by ear, each of the two heard all that the other said.
func (x *inspection) conversed(s *scene) {
	for _, office := range []bool{true, false} {
		rule, ear := "the resident heard the agent", s.citizen
		if !office {
			rule, ear = "the agent heard the resident", s.phone
		}
		heard := ear.Heard()
		var said []followed
		for _, l := range s.lines {
			if l.office == office {
				said = append(said, follow(heard.Between(l.said, l.said.Add(lengthOf(l.pcm)+delay)), l.pcm))
			}
		}
		x.check(s.name, rule, understood(said), "%s", lineByLine(said))
	}
}

// recorded: what the call's record says.
func (x *inspection) recorded(s *scene, rec store.CallRecord) {
	cause := store.CauseHangupCaller
	switch {
	case s.leaves > 0:
		cause = store.CauseAnnouncementHangup
	case s.office != (s.outgoing != ""):
		cause = store.CauseHangupCalled
	}
	x.check(s.name, "the record says why it ended", rec.Cause == cause, "%s", rec.Cause)
	switch {
	case s.outgoing != "":
		x.check(s.name, "the record: outgoing, to the resident", rec.Direction == store.Outgoing && rec.Extension == s.outgoing && rec.Called == s.resident,
			"%s, agent %s, to %v", rec.Direction, rec.Extension, rec.Called)
	case s.withheld:
		x.check(s.name, "not identifiable: the record has no number", !rec.Caller.Identifiable() && rec.Caller.Number == "" && rec.Caller.Raw == "", "%s, the network's number is not kept", rec.Caller.Presentation)
	default:
		x.check(s.name, "the record knows the caller", rec.Caller.Identifiable() && rec.Caller.Number == s.resident, "%v", rec.Caller.Number)
	}
	if s.withheld {
		digits, seen := national(s.resident), 0
		for _, p := range x.c.phones {
			for _, e := range p.Messages() {
				if strings.Contains(string(e.Message.Bytes()), digits) {
					seen++
				}
			}
		}
		shown := s.phone.Invite().Number("From")
		x.check(s.name, "the phone was shown no number", seen == 0 && shown == "anonymous", "shown: %s", shown)
	}
	if !s.recorded() {
		_, err := x.c.sys.store.OpenRecording(rec.Day, rec.ID)
		x.check(s.name, "nothing was recorded", rec.Recording.Outcome == store.OutcomeNone && err != nil, "outcome %s: %s", rec.Recording.Outcome, rec.Recording.Reason)
		return
	}
	x.check(s.name, "recorded", rec.Recording.Outcome == store.OutcomeOK, "outcome %s%s", rec.Recording.Outcome, because(rec.Recording.Reason))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// listened: the recording, copied out of the vault, holds the conversation, and
// each lane what its side said.
func (x *inspection) listened(s *scene, rec store.CallRecord) {
	cp, err := x.copyOut(s, rec)
	if err != nil {
		x.check(s.name, "the recording can be copied out of the vault", false, "%v", err)
		return
	}
	defer func() { x.copies = append(x.copies, cp) }()
	if cp.wav.Rate != pbxtest.Rate || cp.wav.Channels != 2 {
		x.check(s.name, "the recording is stereo at 8 kHz", false, "%d channels at %d Hz", cp.wav.Channels, cp.wav.Rate)
		return
	}
	left, right := pbxtest.Lanes(cp.wav.PCM)
	for _, office := range []bool{false, true} {
		rule, lane, other := "left lane: the resident, nobody else", left, right
		if office {
			rule, lane, other = "right lane: the agent, nobody else", right, left
		}
		var said []followed
		leak := -100.0
		for _, l := range s.lines {
			if l.office != office {
				continue
			}
			// Where it was said, and at most delay later.
			from := max(l.said.Sub(rec.Recording.Began), 0)
			m := follow(span(lane, from, from+lengthOf(l.pcm)+delay), l.pcm)
			if m.mostly() {
				cp.holds = append(cp.holds, laneLine{l, from + m.from})
			}
			said = append(said, m)
			leak = max(leak, pbxtest.Level(span(other, from+m.from, from+m.to)))
		}
		why := lineByLine(said)
		if leak >= quiet {
			why += fmt.Sprintf("; but the other lane is not silent meanwhile (%.0f dBFS)", leak)
		}
		x.check(s.name, rule, understood(said) && leak < quiet, "%s", why)
	}
	talk := rec.Ended.Sub(rec.Answered)
	off := cp.wav.Duration() - talk
	x.check(s.name, "the file is as long as the talk", off.Abs() <= lengthSlack, "%.2f s, off by %d ms", cp.wav.Duration().Seconds(), off.Milliseconds())
}

// whole checks what concerns no single call.
func (x *inspection) whole(ctx context.Context, pages []page) {
	x.c.mu.Lock()
	peak := x.c.peak
	x.c.mu.Unlock()
	x.check("", "the calls overlapped", peak >= 3, "up to %d at once", peak)

	var leaks []string
	for _, p := range pages {
		ok := p.err == nil && p.status == http.StatusOK
		why := fmt.Sprintf("%d", p.status)
		if p.err != nil {
			why = p.err.Error()
		}
		if !p.ready {
			for _, s := range x.c.scenes {
				if hasNumber(p.body, s.resident) {
					leaks = append(leaks, p.path)
				}
			}
			ok, why = ok && len(p.body) > 0, fmt.Sprintf("%s, %d bytes", why, len(p.body))
		}
		x.check("", p.path+" answers during the calls", ok, "%s", why)
	}
	text, err := os.ReadFile(x.c.log)
	if err != nil {
		leaks = append(leaks, err.Error())
	}
	for _, s := range x.c.scenes {
		if hasNumber(string(text), s.resident) {
			leaks = append(leaks, "the switch's log")
		}
	}
	x.check("", "no number on these pages, nor in the log", len(leaks) == 0 && len(pages) > 0, "%s", orElse(strings.Join(leaks, ", "), "none"))

	var wrong []string
	peers := []*pbxtest.Peer{x.c.carrier.Peer}
	for _, p := range x.c.phones {
		peers = append(peers, p.Peer)
	}
	for _, p := range peers {
		for _, v := range p.Violations() {
			wrong = append(wrong, p.Name()+": "+v)
		}
	}
	x.check("", "no peer saw a breach of SIP or RTP", len(wrong) == 0, "%s", orElse(strings.Join(wrong, "; "), "none"))

	want := 0
	for _, s := range x.c.scenes {
		if s.recorded() {
			want++
		}
	}
	report, err := checkVault(ctx, x.c.sys.store, nil, nil)
	why := fmt.Sprintf("%s hashed again", counted(report.Recordings, "recording"))
	if err != nil {
		why = err.Error()
	} else if len(report.Findings) > 0 {
		why = strings.Join(report.Findings, "; ")
	}
	x.check("", "the vault's integrity check is clean", err == nil && len(report.Findings) == 0 && report.Recordings >= want, "%s", why)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// page is what a path of the status page answered.
type page struct {
	path   string
	ready  bool // only its status matters
	status int
	body   string
	err    error
}

// visit asks the status page's paths.
func visit(ctx context.Context, origin string) []page {
	pages := []page{{path: "/readyz", ready: true}, {path: "/stan"}, {path: "/stan.json"}, {path: "/metrics"}}
	client := http.Client{Timeout: 5 * time.Second}
	for i := range pages {
		p := &pages[i]
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, origin+p.path, nil)
		if err != nil {
			p.err = err
			continue
		}
		res, err := client.Do(req)
		if err != nil {
			p.err = err
			continue
		}
		body, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
		p.status, p.body, p.err = res.StatusCode, string(body), errors.Join(err, res.Body.Close())
	}
	return pages
}

// national is a Polish number without its country code: nine digits, which are
// in every way to write it.
func national(n ordinance.Number) string { return strings.TrimPrefix(n.E164(), "+48") }

// hasNumber looks for a number in a text, in any usual way to write it.
func hasNumber(text string, n ordinance.Number) bool {
	plain := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -.()\u00a0\u202f\t\r\n", r) {
			return -1
		}
		return r
	}, text)
	return strings.Contains(plain, national(n))
}
