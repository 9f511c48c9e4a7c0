package web

import (
	"regexp"
	"slices"
)

// What a caller's identity looks like in the text of an error: a display name
// in front of an address, the user of a SIP or tel address, a number written in
// one or in groups.
var identities = []struct {
	found   *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`"[^"]*"\s*<`), "<"},
	{regexp.MustCompile(`(?i)\b(sips?|tel):[^@\s;>]+`), "$1:…"},
	{regexp.MustCompile(`\+?\b\d{7,}\b`), "[numer]"},
	{regexp.MustCompile(`(^|[^-\w+])(?:\+\d{1,3}[ -])?\d{2,3}(?:[ -]\d{2,3}){2,4}\b`), "$1[numer]"},
}

// anonymous takes numbers and names of people out of a text.
func anonymous(text string) string {
	for _, id := range identities {
		text = id.found.ReplaceAllString(text, id.instead)
	}
	return text
}

// picture takes a snapshot and makes its free texts anonymous: errors quote what
// they met, and nobody who writes one thinks of this page.
func (c StatusConfig) picture() Snapshot {
	s := c.Snapshot()
	s.NotReady, s.Alarms, s.Trunks, s.Agents = slices.Clone(s.NotReady), slices.Clone(s.Alarms), slices.Clone(s.Trunks), slices.Clone(s.Agents)
	for i := range s.NotReady {
		s.NotReady[i] = anonymous(s.NotReady[i])
	}
	for i := range s.Alarms {
		s.Alarms[i].Text = anonymous(s.Alarms[i].Text)
	}
	for i := range s.Trunks {
		s.Trunks[i].Err = anonymous(s.Trunks[i].Err)
	}
	for i := range s.Agents {
		s.Agents[i].Reason = anonymous(s.Agents[i].Reason)
	}
	s.Recorder.Latest = slices.Clone(s.Recorder.Latest)
	for i := range s.Recorder.Latest {
		s.Recorder.Latest[i].Reason = anonymous(s.Recorder.Latest[i].Reason)
	}
	s.Recorder.Err = anonymous(s.Recorder.Err)
	s.Vault.SweepErr = anonymous(s.Vault.SweepErr)
	s.Announced.Err = anonymous(s.Announced.Err)
	return s
}
