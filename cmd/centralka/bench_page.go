//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// A page holds what a bench has written between two marks, which are comments of
// HTML; each kind of run has marks of its own, and the next run replaces what is
// between them.
func benchMarks(kind string) (begin, end string) {
	return fmt.Sprintf("<!-- bench %s: written by the bench, not by hand -->", kind), fmt.Sprintf("<!-- end of bench %s -->", kind)
}

// benchReplace puts text between the marks of a kind.
func benchReplace(page []byte, kind, text string) ([]byte, error) {
	begin, end := benchMarks(kind)
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, fmt.Errorf("the page lacks %q or, behind it, %q", begin, end)
	}
	return fmt.Appendf(nil, "%s%s\n\n%s\n\n%s%s", before, begin, strings.TrimSpace(text), end, after), nil
}

func benchWritePage(path, kind, text string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if page, err = benchReplace(page, kind, text); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, page, 0o644)
}

// benchWhere says in one sentence when, on what and with what was measured.
func benchWhere(r *benchResult) string {
	m := r.Machine
	return fmt.Sprintf("%s; %s, %d cores, one for the load and one for what is measured; %s %s, %s, centralka %s; load average before %.1f.",
		r.Date.Format("2 January 2006"), m.CPU, m.Cores, m.Kernel, m.Arch, m.Go, r.Version, m.Load)
}

// markdown is the run as a page shows it.
func (r *benchResult) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d calls for %d s each.\n\n", benchWhere(r), r.Config.Calls, r.Config.Seconds)
	fmt.Fprintln(&b, "| | CPU per packet | centralka to it | added delay p50 / p99 / p99.9 / max | memory per call | lost, altered, crossed, twice | recorded |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|")
	row := func(name string, f *benchFigures, ratio, recorded string) {
		p := f.Packets
		fmt.Fprintf(&b, "| %s | %.1f µs | %s | %s / %s / %s / %s | %d KB | %d, %d, %d, %d of %d | %s |\n", name, f.CPUPerPacket, ratio,
			benchMicros(f.Delay.P50), benchMicros(f.Delay.P99), benchMicros(f.Delay.P999), benchMicros(f.Delay.Max),
			f.RSSPerCall/1024, p.Lost, p.Altered, p.Crossed, p.Duplicated, p.Sent, recorded)
	}
	row("centralka, recording", &r.benchFigures, "1", fmt.Sprintf("%d of %d packets, %d of %d recordings right", r.Recordings.Found, r.Recordings.Frames, r.Recordings.OK, r.Config.Calls))
	for i := range r.Rivals {
		v := &r.Rivals[i]
		recorded := "no"
		if v.Recorded >= 0 {
			recorded = fmt.Sprintf("%d of %d packets", v.Recorded, v.Packets.Sent)
		}
		row(v.Name, &v.benchFigures, fmt.Sprintf("**%.2f**", r.CPUPerPacket/v.CPUPerPacket), recorded)
	}
	fmt.Fprintf(&b, "\nINVITE to 200 at %g calls a second: p50 %s, p99 %s. The load was late by %s (p99), %s at most.\n", r.Config.Rate,
		benchMicros(r.Setup.P50), benchMicros(r.Setup.P99), benchMicros(r.Lateness.P99), benchMicros(float64(r.LoadHeldUp.Microseconds())))
	return b.String()
}
