package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
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

// recordingCopy is a recording that was copied out of the vault.
type recordingCopy struct {
	scene *scene
	rec   store.CallRecord
	file  string
	wav   pbxtest.WAV
	holds []laneLine // what was found in it
}

// laneLine is a line that was found in its lane.
type laneLine struct {
	spoken
	at time.Duration
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
		x.check(s.name, "heard the beginning of the announcement, and left", part.whole && len(heard.PCM) < len(x.announcement), "hung up after %s of %s", seconds(lengthOf(heard.PCM)), seconds(lengthOf(x.announcement)))
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

// followed says how something spoken was heard.
type followed struct {
	from, to time.Duration // in what was heard
	pauses   time.Duration // put into it by a machine that was held up
	lost     time.Duration // of it, never heard
	whole    bool
}

func (m followed) String() string {
	switch {
	case m.to == 0:
		return "not heard at all"
	case !m.whole:
		return seconds(m.lost) + " of it were not heard"
	case m.pauses > 0:
		return fmt.Sprintf("in full, with pauses of %d ms: this machine was held up", m.pauses.Milliseconds())
	}
	return "unbroken"
}

// mostly tells whether a line was understood: of a simulated speaker, too, a
// machine that is held up loses a syllable.
func (m followed) mostly() bool { return m.to > 0 && m.lost*5 < m.to-m.from }

// follow listens for something spoken: all of it must be heard, in its order.
// Pauses may lie between its parts, as the switch puts them there when the
// machine does not let it run for a while.
func follow(heard, prompt []int16) followed {
	const (
		piece = pbxtest.Rate / 2
		least = piece / 4 // a pause within such a piece hides it
		later = pbxtest.Rate
	)
	var m pbxtest.Match
	begin := 0
	for ; begin < min(3*piece, len(prompt)) && m.Similarity < alike; begin += piece {
		m = pbxtest.Find(heard[:min(len(heard), begin+piece+2*later)], prompt[begin:min(begin+piece, len(prompt))])
	}
	if m.Similarity < alike {
		return followed{lost: lengthOf(prompt)}
	}
	// offset is from a sample of the prompt to the one that was heard. If a pause
	// hides the first piece, what is before the pause lies earlier.
	offset := int(m.From*pbxtest.Rate/time.Second) - (begin - piece)
	if begin > piece {
		offset -= later
	}
	var f followed
	hidden, shifts, started := 0, 0, false
	var listen func(i, j int)
	listen = func(i, j int) {
		part := prompt[i:j]
		if pbxtest.Level(part) < quiet {
			return
		}
		for _, slack := range []int{8, later} { // where it must be, or up to a second later
			from := min(max(i+offset, 0), len(heard))
			at := pbxtest.Find(heard[from:max(from, min(j+offset+slack, len(heard)))], part)
			if at.Similarity < alike || at.From < -time.Millisecond {
				continue
			}
			shift := from + int(at.From*pbxtest.Rate/time.Second) - i - offset
			if started && shift > 8 {
				shifts++
				f.pauses += time.Duration(shift) * time.Second / pbxtest.Rate
			}
			if !started || shift > 8 {
				offset += shift
			}
			if !started {
				f.from = time.Duration(offset) * time.Second / pbxtest.Rate
			}
			started = true
			return
		}
		if j-i <= least {
			hidden += j - i
			return
		}
		listen(i, (i+j)/2)
		listen((i+j)/2, j)
	}
	for i := 0; i < len(prompt); i += piece {
		listen(i, min(i+piece, len(prompt)))
	}
	f.to = time.Duration(offset+len(prompt)) * time.Second / pbxtest.Rate
	f.whole = hidden <= shifts*least
	f.lost = time.Duration(hidden) * time.Second / pbxtest.Rate
	return f
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

func understood(said []followed) bool {
	return len(said) > 0 && !slices.ContainsFunc(said, func(m followed) bool { return !m.mostly() })
}

// lineByLine says how lines were heard.
func lineByLine(said []followed) string {
	var faults []string
	var whole time.Duration
	for i, m := range said {
		whole += m.to - m.from
		if !m.whole || m.pauses > 0 {
			faults = append(faults, fmt.Sprintf("line %d: %v", i+1, m))
		}
	}
	if len(faults) > 0 {
		return strings.Join(faults, "; ")
	}
	return fmt.Sprintf("%s, %s, to the last sample", counted(len(said), "line"), seconds(whole))
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
		x.check(s.name, "the record says: outgoing, agent "+s.outgoing+", to the resident", rec.Direction == store.Outgoing && rec.Extension == s.outgoing && rec.Called == s.resident,
			"%s, agent %s, to %v", rec.Direction, rec.Extension, rec.Called)
	case s.withheld:
		x.check(s.name, "the record has no number: not identifiable", !rec.Caller.Identifiable() && rec.Caller.Number == "" && rec.Caller.Raw == "", "%s, the network's number is not kept", rec.Caller.Presentation)
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
		rule, lane, other := "left lane: the resident, and nothing of the agent", left, right
		if office {
			rule, lane, other = "right lane: the agent, and nothing of the resident", right, left
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
	x.check(s.name, "the file is as long as the conversation", off.Abs() <= lengthSlack, "%.2f s, off by %d ms", cp.wav.Duration().Seconds(), off.Milliseconds())
}

func span(pcm []int16, from, to time.Duration) []int16 {
	index := func(t time.Duration) int { return min(max(int(t*pbxtest.Rate/time.Second), 0), len(pcm)) }
	return pcm[index(from):max(index(to), index(from))]
}

// copyOut copies a recording through the store, and reads the copy back.
func (x *inspection) copyOut(s *scene, rec store.CallRecord) (cp recordingCopy, err error) {
	content, err := x.c.sys.store.OpenRecording(rec.Day, rec.ID)
	if err != nil {
		return cp, fmt.Errorf("open recording %v: %w", rec.ID, err)
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if err := os.MkdirAll(x.out, 0o700); err != nil {
		return cp, fmt.Errorf("make the folder of the copies: %w", err)
	}
	cp = recordingCopy{scene: s, rec: rec}
	f, err := createUnused(x.out, recordingName(rec.Recording.Began, s))
	if err != nil {
		return cp, fmt.Errorf("copy recording %v: %w", rec.ID, err)
	}
	cp.file = f.Name()
	_, err = io.Copy(f, io.NewSectionReader(content, 0, content.Size()))
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		cp.wav, err = pbxtest.ReadWAV(f)
	}
	return cp, errors.Join(err, f.Close())
}

// recordingName names a copy by its time and scene, never by a number.
func recordingName(began time.Time, s *scene) string {
	direction := "incoming"
	if s.outgoing != "" {
		direction = "outgoing"
	}
	return fmt.Sprintf("%s-%s-%s", began.In(ordinance.Warsaw).Format("2006-01-02-150405"), s.name, direction)
}

// createUnused makes name.wav, or name-2.wav and so on if that is there: no
// copy takes the place of another.
func createUnused(dir, name string) (*os.File, error) {
	for n := 1; ; n++ {
		unique := name
		if n > 1 {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		f, err := os.OpenFile(filepath.Join(dir, unique+".wav"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil || !errors.Is(err, os.ErrExist) || n == 1000 {
			return f, err
		}
	}
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
	x.check("", "no resident's number on these pages, nor in the log", len(leaks) == 0 && len(pages) > 0, "%s", orElse(strings.Join(leaks, ", "), "none"))

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
	x.check("", "carrier and phones saw no breach of SIP or RTP", len(wrong) == 0, "%s", orElse(strings.Join(wrong, "; "), "none"))

	want := 0
	for _, s := range x.c.scenes {
		if s.recorded() {
			want++
		}
	}
	report, err := checkRecordings(ctx, x.c.sys.store, nil)
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
