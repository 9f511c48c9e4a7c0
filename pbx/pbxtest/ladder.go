package pbxtest

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Ladder collects SIP messages and draws who sent what to whom. Feed it from
// one place only: the tap of a Net (Tap), or the OnMessage of peers that all
// talk to one switch (Observe); a message seen by both would stand there twice.
// Telephone numbers are masked. Methods are safe for concurrent use.
type Ladder struct {
	mu    sync.Mutex
	names map[netip.AddrPort]string
	order []string // columns
	steps []step
	began time.Time
	out   io.Writer
	calls map[string]int // Call-ID to its number in the drawing
	seen  map[string]bool
}

type step struct {
	at       time.Time
	from, to string
	label    string
	short    string // without the reason phrase
	call     int
	lost     bool
	again    bool
	callID   string
}

const columnWidth = 30

// NewLadder makes a ladder; name its participants with Name, left to right.
func NewLadder() *Ladder {
	return &Ladder{names: map[netip.AddrPort]string{}, calls: map[string]int{}, seen: map[string]bool{}}
}

// Name gives a participant its column. Addresses without a name stand for
// themselves.
func (l *Ladder) Name(addr netip.AddrPort, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[addr] = name
	l.column(name)
}

// Stream writes each step to w as it happens, under a line of names that is
// written now: name the participants first. A write error ends the stream.
func (l *Ladder) Stream(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = w
	l.emit(l.heading())
}

// Tap takes the datagrams of a Net: net.OnPacket(ladder.Tap).
func (l *Ladder) Tap(p Packet) {
	if !IsSIP(p.From, p.To, p.Payload) {
		return
	}
	m, err := ParseMessage(p.Payload)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := p.From.String() + p.To.String() + string(p.Payload)
	again := l.seen[key]
	l.seen[key] = true
	l.add(p.At, p.From, p.To, m, again, p.Dropped)
}

// Observe takes the messages of a peer: PeerConfig{OnMessage: ladder.Observe}.
func (l *Ladder) Observe(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.names[e.Local]; !ok {
		l.names[e.Local] = e.Peer
		l.column(e.Peer)
	}
	from, to := e.Remote, e.Local
	if e.Out {
		from, to = to, from
	}
	l.add(e.At, from, to, e.Message, e.Again, false)
}

func (l *Ladder) add(at time.Time, from, to netip.AddrPort, m *Message, again, lost bool) {
	if l.began.IsZero() {
		l.began = at
	}
	if l.calls[m.CallID()] == 0 {
		l.calls[m.CallID()] = len(l.calls) + 1
	}
	short := m.Method
	if m.Status != 0 {
		_, method := m.CSeq()
		short = fmt.Sprintf("%d (%s)", m.Status, method)
	}
	s := step{short: short, at: at, from: l.name(from), to: l.name(to), label: masked(m.String()), call: l.calls[m.CallID()], lost: lost, again: again, callID: m.CallID()}
	l.steps = append(l.steps, s)
	if l.out != nil {
		l.emit(l.draw(s))
	}
}

func (l *Ladder) emit(line string) {
	if _, err := io.WriteString(l.out, line+"\n"); err != nil {
		l.out = nil
	}
}

func (l *Ladder) name(a netip.AddrPort) string {
	if n, ok := l.names[a]; ok {
		return n
	}
	n := a.String()
	l.names[a] = n
	l.column(n)
	return n
}

func (l *Ladder) column(name string) int {
	i := slices.Index(l.order, name)
	if i < 0 {
		i = len(l.order)
		l.order = append(l.order, name)
	}
	return i
}

// Lines is the compact form for assertions: "carrier > switch INVITE",
// "switch > carrier 200 OK (INVITE)"; a retransmission ends in " (again)", a
// lost message in " (lost)". With call-IDs only those calls are listed.
func (l *Ladder) Lines(callIDs ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, s := range l.steps {
		if len(callIDs) > 0 && !slices.Contains(callIDs, s.callID) {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s > %s %s", s.from, s.to, s.text()))
	}
	return lines
}

func (s step) text() string {
	t := s.label
	if s.again {
		t += " (again)"
	}
	if s.lost {
		t += " (lost)"
	}
	return t
}

// String draws the whole ladder; the number behind each step tells the calls
// (Call-IDs) apart.
func (l *Ladder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := []string{l.heading()}
	for _, s := range l.steps {
		lines = append(lines, l.draw(s))
	}
	return strings.Join(lines, "\n") + "\n"
}

const margin = 12

func (l *Ladder) heading() string {
	line := []rune(strings.Repeat(" ", margin+columnWidth*max(len(l.order)-1, 0)+16))
	for i, name := range l.order {
		n := []rune(name)
		at := max(margin+i*columnWidth-len(n)/2, 0)
		for k, r := range n {
			if at+k < len(line) {
				line[at+k] = r
			}
		}
	}
	return strings.TrimRight(string(line), " ")
}

func (l *Ladder) draw(s step) string {
	from, to := l.column(s.from), l.column(s.to)
	line := []rune(strings.Repeat(" ", margin+columnWidth*max(len(l.order)-1, 0)+1))
	copy(line, []rune(fmt.Sprintf("%+9.3f", s.at.Sub(l.began).Seconds())))
	for i := range l.order {
		line[margin+i*columnWidth] = '│'
	}
	left, right := margin+min(from, to)*columnWidth, margin+max(from, to)*columnWidth
	text := []rune(" " + s.text() + " ")
	if len(text) > columnWidth-5 {
		s.label = s.short
		text = []rune(" " + s.text() + " ")
	}
	if from != to {
		for i := left + 1; i < right; i++ {
			line[i] = '─'
		}
		text = text[:min(len(text), right-left-3)]
		at := left + (right-left-len(text))/2 + 1
		copy(line[at:], text)
		switch {
		case s.lost && to > from:
			line[right-1] = '✗'
		case s.lost:
			line[left+1] = '✗'
		case to > from:
			line[right-1] = '▶'
		default:
			line[left+1] = '◀'
		}
	}
	return string(line) + fmt.Sprintf("  #%d", s.call)
}
