package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// barWidth is that of the bar, in characters.
const barWidth = 30

// progress is a bar on a terminal. Where there is none it writes a line now and
// then, so that a log stays readable. One goroutine uses it.
type progress struct {
	w        io.Writer
	terminal bool
	every    time.Duration
	last     time.Time
	drawn    bool
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, every: 10 * time.Second}
	if f, ok := w.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			p.terminal, p.every = true, 100*time.Millisecond
		}
	}
	p.last = time.Now()
	return p
}

// show says that done of total are done.
func (p *progress) show(done, total int) {
	if total <= 0 || time.Since(p.last) < p.every {
		return
	}
	p.last = time.Now()
	text := fmt.Sprintf("%d of %d (%d %%)", done, total, 100*done/total)
	if !p.terminal {
		fmt.Fprintln(p.w, text)
		return
	}
	full := barWidth * done / total
	fmt.Fprintf(p.w, "\r[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), text)
	p.drawn = true
}

// end takes the bar away.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\033[K")
		p.drawn = false
	}
}
