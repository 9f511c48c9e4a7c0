package pbx

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Leftovers names what a switch without calls should not hold any more; empty
// if there is nothing.
func (s *Switch) Leftovers() string {
	var out []string
	note := func(what string, n int) {
		if n != 0 {
			out = append(out, fmt.Sprintf("%d %s", n, what))
		}
	}
	s.mu.Lock()
	note("calls", len(s.byID))
	note("dialogs", len(s.dialogs))
	note("pending INVITEs", len(s.pending))
	for _, t := range s.trunks {
		note("calls on trunk "+t.cfg.Name, int(t.calls.Load()))
	}
	s.mu.Unlock()
	s.lines.mu.Lock()
	note("legs of phones", len(s.lines.of))
	note("legs charged to phones", len(s.lines.charged))
	note("busy phones", len(s.lines.legs))
	note("phones with calls to the outside", len(s.lines.placed))
	s.lines.mu.Unlock()
	for transport, n := range s.end.flows.count() {
		note(transport+" connections", n)
	}
	note("subscriptions", len(s.lampBoard.subs)) // its goroutine has ended
	return strings.Join(out, ", ")
}

// Exempt reports whether the guard lets everything from addr pass.
func (s *Switch) Exempt(addr netip.Addr) bool { return s.guard.known(addr) }

// HoldWrites lets the scribe's writes hang, as on a disk that answers nothing,
// until release is called.
func (s *Switch) HoldWrites() (release func()) {
	held := make(chan struct{})
	s.scribe.mu.Lock()
	defer s.scribe.mu.Unlock()
	write := s.scribe.write
	s.scribe.write = func(ext string) error {
		<-held
		return write(ext)
	}
	return func() { close(held) }
}

// PretendTLS lets keys be said over any transport, and sets srtp of all trunks
// and of all phones. It must be called before Run.
func (s *Switch) PretendTLS(trunks, phones string) {
	s.secret = func(hop) bool { return true }
	live := *s.live.Load()
	live.Trunks = slices.Clone(live.Trunks)
	for i := range live.Trunks {
		live.Trunks[i].SRTP = trunks
	}
	live.extensions = maps.Clone(live.extensions)
	for n, e := range live.extensions {
		e.SRTP = phones
		live.extensions[n] = e
	}
	s.live.Store(&live)
}
