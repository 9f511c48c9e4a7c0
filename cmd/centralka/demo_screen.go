package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// The columns of the demo's lines: the time, then the text.
const (
	stampWidth   = 9   // as the ladder has it
	plainWidth   = 110 // of a log, which does not wrap
	ladderWidth  = 108 // that the ladder needs with a column for each phone
	headingEvery = 30  // ladder steps between two headings
	gaugeWidth   = 10  // of the announcement's progress
)

// screen prints what the demo tells: lines that stay and, on a terminal, one
// line of progress below them that does not. Colours are for terminals only.
// It is safe for concurrent use.
type screen struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	colour   bool
	width    int
	began    time.Time
	mask     *strings.Replacer
	progress string
	step     string // the scene of the ladder's next line
	heading  string // the ladder's names
	steps    int    // since the heading was printed
	err      error  // the first of out; nothing is written after it
}

// newScreen looks at what it writes to.
func newScreen(out io.Writer) *screen {
	s := &screen{out: out, mask: numberMask(), width: plainWidth, began: time.Now()}
	if f, ok := out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			s.terminal = os.Getenv("TERM") != "dumb"
			s.colour = s.terminal && os.Getenv("NO_COLOR") == ""
			if size.Col >= 40 {
				s.width = int(size.Col)
			}
		}
	}
	return s
}

// roomForPhones tells whether the ladder may have a column for each phone.
func (s *screen) roomForPhones() bool { return !s.terminal || s.width >= ladderWidth }

// The colours of the scenes, and of the rest.
var ansi = map[string]string{
	"A": "36", "B": "33", "C": "35", "D": "32", "bold": "1", "dim": "2", "good": "32", "bad": "31;1",
}

// paint colours text if the screen has colours.
func (s *screen) paint(colour, text string) string {
	if code := ansi[colour]; s.colour && code != "" {
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	return text
}

// print writes lines that stay.
func (s *screen) print(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.emit(fmt.Sprintf(format, args...) + "\n")
}

// tell writes what happens in a scene, in words, under the time.
func (s *screen) tell(scene, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lead := fmt.Sprintf("%s   %s  ", s.stamp(), scene)
	lines := wrap(text, s.width-utf8.RuneCountInString(lead)-1)
	for i, line := range lines {
		if i > 0 {
			lead = strings.Repeat(" ", utf8.RuneCountInString(lead))
		}
		s.emit(lead + s.paint(scene, line) + "\n")
	}
}

// paragraph writes text that is wrapped to the screen.
func (s *screen) paragraph(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range wrap(text, min(s.width-1, plainWidth)) {
		s.emit(line + "\n")
	}
}

// Write takes the lines of a ladder: under our own time, and with the scene in
// place of the number of the Call-ID, since one scene has a Call-ID on either
// side of the switch.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		line = strings.TrimSuffix(line, "\n")
		at := strings.LastIndex(line, "  #")
		if at < 0 {
			s.heading, s.steps = line, 0
			s.emit(s.paint("bold", line) + "\n")
			continue
		}
		if s.steps++; s.steps > headingEvery {
			s.steps = 1
			s.emit(s.paint("bold", s.heading) + "\n")
		}
		runes := []rune(line[:at])
		line = s.stamp() + string(runes[min(stampWidth, len(runes)):])
		if s.step != "" {
			s.emit(s.paint("dim", line) + "  " + s.paint(s.step, s.step) + "\n")
		} else {
			s.emit(s.paint("dim", line) + "\n")
		}
	}
	return len(p), s.err
}

// next says to which scene the ladder's next line belongs.
func (s *screen) next(scene string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step = scene
}

// show replaces the line of progress; only terminals have one.
func (s *screen) show(progress string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal {
		return
	}
	if r := []rune(progress); len(r) >= s.width {
		progress = string(r[:s.width-1])
	}
	if progress != s.progress {
		s.progress = progress
		s.emit("")
	}
}

// emit writes lines above the progress. The caller holds mu.
func (s *screen) emit(lines string) {
	if s.err != nil {
		return
	}
	if s.terminal {
		lines = "\r\x1b[K" + lines + s.paint("bold", s.progress)
	}
	_, s.err = s.mask.WriteString(s.out, lines)
}

// numberMask hides the demo's numbers but for the last two digits: the net below
// everything that is printed.
func numberMask() *strings.Replacer {
	var pairs []string
	for _, s := range scenes() {
		n := national(s.resident)
		pairs = append(pairs, n, strings.Repeat("*", len(n)-2)+n[len(n)-2:])
	}
	return strings.NewReplacer(pairs...)
}

// failed is the first error of writing.
func (s *screen) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// stamp is the time since the demo began, as wide as the ladder's.
func (s *screen) stamp() string { return fmt.Sprintf("%6.1f s ", time.Since(s.began).Seconds()) }

// wrap breaks text between words into lines of at most width characters; a
// longer word stays whole.
func wrap(text string, width int) []string {
	var lines []string
	line, length := "", 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		if length > 0 && length+1+n > width {
			lines = append(lines, line)
			line, length = "", 0
		}
		if length > 0 {
			line += " "
			length++
		}
		line += word
		length += n
	}
	return append(lines, line)
}

// gauge draws how much of a whole is done: "▓▓▓░░░".
func gauge(done, whole time.Duration) string {
	n := gaugeWidth
	if whole > 0 && done < whole {
		n = int(max(done, 0) * gaugeWidth / whole)
	}
	return strings.Repeat("▓", n) + strings.Repeat("░", gaugeWidth-n)
}

// outline draws the loudness of a lane (0..255 per column) in one row of n
// characters; silence is a dot.
func outline(peaks []byte, n int) string {
	const steps = "▁▂▃▄▅▆▇█"
	levels := []rune(steps)
	if len(peaks) == 0 {
		return ""
	}
	row := make([]rune, min(n, len(peaks)))
	for i := range row {
		top := byte(0)
		for _, p := range peaks[i*len(peaks)/len(row) : max((i+1)*len(peaks)/len(row), i*len(peaks)/len(row)+1)] {
			top = max(top, p)
		}
		row[i] = '·'
		if top > 1 { // A-law has no zero: its silence is one step
			row[i] = levels[min(int(top)*len(levels)/256, len(levels)-1)]
		}
	}
	return string(row)
}

// seconds writes a length of time for people: "4.1 s".
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s" }
