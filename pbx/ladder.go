package pbx

import (
	"bytes"
	"hash/maphash"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"centralka/ordinance"
	"centralka/store"
)

const (
	// ladderLines bounds what is kept of one dialog: its beginning and its end.
	// What lies between in a call of hours is refreshes.
	ladderLines = 200
	// ladderWaiting bounds the dialogs that no call has taken: INVITEs that were
	// refused before they were one, and strangers' noise.
	ladderWaiting = 512
	ladderNotes   = 24 // of one message
	ladderNote    = 80 // characters of a text that came from a peer
)

// ladders keeps the messages of calls as they cross our sockets, copies sent
// again included, for the administrator who asks why a call failed. It reads
// text, not what the stack made of it, and keeps of it what it shows: no
// header whole, no number unmasked, nothing of a party that withheld its own.
//
// A dialog is known by its Call-ID from its first INVITE on; the leg that it
// becomes takes it. It is safe for concurrent use; its lock is held for the
// parsing of one message.
type ladders struct {
	seed maphash.Seed

	mu      sync.Mutex
	by      map[string]*dialogTrace // by Call-ID
	waiting []*dialogTrace          // not taken by a leg yet, oldest first
}

// dialogTrace is the messages of one Call-ID. It is guarded by the mutex of
// ladders.
type dialogTrace struct {
	callID string
	taken  int // legs that have it
	lines  []store.LadderLine
	cut    int
	seen   []uint64 // hashes of the last messages, to know a copy by
}

func newLadders() *ladders {
	return &ladders{seed: maphash.MakeSeed(), by: map[string]*dialogTrace{}}
}

// observe takes one message, as it came in behind the guard or as it was sent.
func (k *ladders) observe(sent bool, transport string, data []byte, at time.Time) {
	line, callID, begins := readLadderLine(data)
	if callID == "" {
		return
	}
	sum := maphash.Bytes(k.seed, data)
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.by[callID]
	if t == nil {
		if !begins {
			return // OPTIONS, REGISTER, lamps, or a dialog that is over
		}
		t = k.begin(callID)
	}
	line.At, line.Sent, line.Transport = at, sent, transport
	line.Repeat = slices.Contains(t.seen, sum)
	if t.seen = append(t.seen, sum); len(t.seen) > 16 {
		t.seen = slices.Delete(t.seen, 0, 1)
	}
	if len(t.lines) == ladderLines {
		t.lines = slices.Delete(t.lines, ladderLines/2, ladderLines/2+1)
		t.cut++
	}
	t.lines = append(t.lines, line)
}

func (k *ladders) begin(callID string) *dialogTrace {
	t := &dialogTrace{callID: callID}
	k.by[callID] = t
	if len(k.waiting) == ladderWaiting {
		delete(k.by, k.waiting[0].callID)
		k.waiting = slices.Delete(k.waiting, 0, 1)
	}
	k.waiting = append(k.waiting, t)
	return t
}

// legTrace is one leg's part of its call's ladder.
type legTrace struct {
	store.LadderParty
	*dialogTrace
	// private: the peer calls from a number that it withholds. Its Contact, to
	// which our requests go, may have it.
	private bool
}

// take adds the messages of l's dialog, past and to come, to the ladder of c.
func (k *ladders) take(c *call, l *leg) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.by[l.d.id.callID]
	if t == nil {
		t = &dialogTrace{callID: l.d.id.callID}
		k.by[t.callID] = t
	}
	if i := slices.Index(k.waiting, t); i >= 0 {
		k.waiting = slices.Delete(k.waiting, i, i+1)
	}
	t.taken++
	private := l.trunk != nil && l.inviteTx != nil && !callerIdentity(l.invite, true).Identifiable()
	c.traces = append(c.traces, legTrace{store.LadderParty{Leg: l.label, Name: l.partyName()}, t, private})
}

// release forgets the dialogs of c, which is over.
func (k *ladders) release(c *call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range c.traces {
		if t.taken--; t.taken == 0 {
			delete(k.by, t.callID)
		}
	}
	c.traces = nil
}

// ladder puts the dialogs of a call's legs together.
func (k *ladders) ladder(c *call) store.Ladder {
	var out store.Ladder
	k.mu.Lock()
	for _, t := range c.traces {
		out.Parties = append(out.Parties, t.LadderParty)
		for _, line := range t.lines {
			line.Leg = t.Leg
			if t.private && line.Sent && line.Status == 0 {
				line.Text = withoutUser(line.Text)
			}
			out.Lines = append(out.Lines, line)
		}
		out.Cut += t.cut
	}
	k.mu.Unlock()
	slices.SortStableFunc(out.Lines, func(a, b store.LadderLine) int { return a.At.Compare(b.At) })
	return out
}

// partyName is a trunk's name or a phone's extension.
func (l *leg) partyName() string {
	if l.trunk != nil {
		return l.trunk.cfg.Name
	}
	return l.ext
}

// readLadderLine reads what a ladder shows of a message, from its text alone.
// callID is empty if it is none; begins tells an INVITE outside of a dialog.
func readLadderLine(data []byte) (line store.LadderLine, callID string, begins bool) {
	head, body, ok := bytes.Cut(data, []byte("\r\n\r\n"))
	if !ok {
		return line, "", false
	}
	first, rest, _ := strings.Cut(string(head), "\r\n")
	inDialog, sdp := false, false
	method := ""
	for field := range strings.SplitSeq(rest, "\r\n") {
		name, value, _ := strings.Cut(field, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "call-id", "i":
			callID = value
		case "to", "t":
			_, params, _ := strings.Cut(value, ">")
			inDialog = strings.Contains(strings.ToLower(params), "tag=")
		case "cseq":
			seq, m, _ := strings.Cut(value, " ")
			n, err := strconv.ParseUint(seq, 10, 32)
			if err != nil {
				return line, "", false
			}
			line.CSeq, method = uint32(n), strings.TrimSpace(m)
		case "reason", "retry-after", "session-expires", "x", "min-se", "rack", "rseq", "require", "unsupported", "warning", "event", "subscription-state":
			line.Notes = append(line.Notes, shownText(strings.TrimSpace(name)+": "+value))
		case "refer-to", "r":
			line.Notes = append(line.Notes, "Refer-To: "+shownURI(value))
		case "replaces":
			line.Notes = append(line.Notes, "Replaces")
		case "content-type", "c":
			sdp = strings.HasPrefix(strings.ToLower(value), "application/sdp")
		}
	}
	if sdp {
		line.Notes = append(line.Notes, shownVoice(body)...)
	}
	if len(line.Notes) > ladderNotes { // a peer may send any number of fields
		line.Notes = append([]string(nil), line.Notes[:ladderNotes]...)
	}
	line.Method = shownText(method)
	version, text, _ := strings.Cut(first, " ")
	if strings.HasPrefix(version, "SIP/") {
		status, reason, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(status)
		if err != nil || n < 100 || n > 699 {
			return line, "", false
		}
		line.Status, line.Text = n, shownText(reason)
		return line, callID, false
	}
	uri, _, _ := strings.Cut(text, " ")
	line.Method, line.Text = shownText(version), shownURI(uri)
	return line, callID, version == "INVITE" && !inDialog
}

// maybeNumber is what could be somebody's telephone number, written as people do.
var maybeNumber = regexp.MustCompile(`[0-9](?:[ ()/-]*[0-9]){6,}`)

// shownText is a text from outside as a page may show it: short, printable, and
// without anything that might be a number.
func shownText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	s = maybeNumber.ReplaceAllString(s, "***")
	if short := []rune(s); len(short) > ladderNote {
		return string(short[:ladderNote]) + "…"
	}
	return s
}

// shownURI is the host of a URI and its user with the middle digits hidden; a
// user that is neither an extension nor a number is not shown.
func shownURI(s string) string {
	if _, after, ok := strings.Cut(s, "<"); ok {
		s, _, _ = strings.Cut(after, ">")
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return shownText(s)
	}
	rest, _, _ = strings.Cut(rest, "?")
	user, host, hasUser := strings.Cut(rest, "@")
	if !hasUser && !strings.EqualFold(scheme, "tel") {
		user, host = "", rest
	}
	user, _, _ = strings.Cut(user, ";")
	host, _, _ = strings.Cut(host, ";")
	shown := "***"
	switch n, isNumber := ordinance.ParseNumber(user); {
	case user == "":
		shown = ""
	case isNumber && len(n) <= 6, strings.HasPrefix(user, "*") && len(user) <= 8:
		shown = user // an extension, a short number, a feature code
	case isNumber:
		shown = n.String()
	}
	if hasUser {
		shown += "@"
	}
	return shownText(scheme) + ":" + shown + shownText(host)
}

// withoutUser hides all of the user in what shownURI has made.
func withoutUser(shown string) string {
	scheme, rest, _ := strings.Cut(shown, ":")
	_, host, ok := strings.Cut(rest, "@")
	switch {
	case ok:
		return scheme + ":***@" + host
	case strings.EqualFold(scheme, "tel"):
		return scheme + ":***"
	}
	return shown
}

// shownVoice tells what an offer or answer says of voice: codecs, direction,
// whether it is encrypted, streams that are refused.
func shownVoice(body []byte) []string {
	s, err := parseSDP(body)
	if err != nil {
		return []string{"SDP: unreadable"}
	}
	var out []string
	for i := range s.Media {
		m := &s.Media[i]
		note := "SDP: " + shownText(m.Kind+" "+m.Proto)
		if m.Port == 0 {
			out = append(out, note+" refused")
			continue
		}
		var codecs []string
		for _, f := range m.Formats {
			if f == "0" {
				f = "PCMU"
			} else if f == "8" {
				f = "PCMA"
			}
			codecs = append(codecs, f)
		}
		direction := "sendrecv"
		for _, a := range append(slices.Clone(s.Attrs), m.Attrs...) {
			switch a.Name {
			case "sendrecv", "sendonly", "recvonly", "inactive":
				direction = a.Name
			}
		}
		if conn := connInForce(m.Conn, s.Conn); conn.Host == "0.0.0.0" {
			direction += ", c=0.0.0.0"
		}
		out = append(out, note+" "+shownText(strings.Join(codecs, " "))+", "+direction)
	}
	return out
}

// connInForce is the address in force for a stream.
func connInForce(media, session sdpConn) sdpConn {
	if media.Host != "" {
		return media
	}
	return session
}

// Ladder returns the messages of a call that is up, or of one that ended, from
// its day. The error is store.ErrNotFound if nothing is known of it.
func (s *Switch) Ladder(day ordinance.Day, id store.ID) (store.Ladder, error) {
	s.mu.Lock()
	c := s.byID[id]
	s.mu.Unlock()
	if c != nil {
		return s.ladders.ladder(c), nil
	}
	return s.store.Ladder(day, id)
}
