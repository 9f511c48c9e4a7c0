package main

import (
	"slices"
	"strconv"
	"strings"
)

// keyLines finds the line on which each section and key of a valid TOML text
// begins. Keys inside inline tables are not listed.
func keyLines(text string) map[string]int {
	s := lineScan{text: text, at: 1, lines: map[string]int{}, count: map[string]int{}}
	for s.skipBlank(); s.text != ""; s.skipBlank() {
		begin := s.at
		switch {
		case strings.HasPrefix(s.text, "[["):
			s.cut(2)
			path := s.key()
			s.cut(1) // the second ]
			base := s.resolve(path[:len(path)-1], path[len(path)-1])
			s.section = base + "[" + strconv.Itoa(s.count[base]) + "]"
			s.count[base]++
			s.lines[s.section] = begin
			if s.count[base] == 1 {
				s.lines[base] = begin
			}
		case s.text[0] == '[':
			s.cut(1)
			path := s.key()
			s.section = s.resolve(path, "")
			s.lines[s.section] = begin
		default:
			s.lines[join(s.section, strings.Join(s.key(), "."))] = begin
			s.skipBlank()
		}
		s.rest()
	}
	return s.lines
}

type lineScan struct {
	text    string // not yet read
	at      int    // its line
	section string
	lines   map[string]int
	count   map[string]int // elements of each [[section]] so far
}

func (s *lineScan) cut(n int) {
	n = min(n, len(s.text))
	s.at += strings.Count(s.text[:n], "\n")
	s.text = s.text[n:]
}

// skipBlank skips white space and comments.
func (s *lineScan) skipBlank() {
	for s.text != "" {
		switch {
		case strings.ContainsRune(" \t\r\n", rune(s.text[0])):
			s.cut(1)
		case s.text[0] == '#':
			s.comment()
		default:
			return
		}
	}
}

func (s *lineScan) comment() {
	if i := strings.IndexByte(s.text, '\n'); i >= 0 {
		s.cut(i)
	} else {
		s.cut(len(s.text))
	}
}

// key reads a dotted key and the = or ] after it.
func (s *lineScan) key() []string {
	path := []string{""}
	for s.text != "" {
		switch c := s.text[0]; c {
		case '.':
			path = append(path, "")
			s.cut(1)
		case '"', '\'':
			path[len(path)-1] = strings.Trim(s.text[:s.quoted()], string(c))
			s.cut(s.quoted())
		case '=', ']', '\n':
			s.cut(1)
			return path
		case ' ', '\t':
			s.cut(1)
		default:
			path[len(path)-1] += string(c)
			s.cut(1)
		}
	}
	return path
}

// resolve writes a section's name with the number of the current element of
// each [[section]] on the way; last is not numbered.
func (s *lineScan) resolve(path []string, last string) string {
	name := ""
	for _, p := range path {
		name = join(name, p)
		if n := s.count[name]; n > 0 {
			name += "[" + strconv.Itoa(n-1) + "]"
		}
	}
	if last != "" {
		name = join(name, last)
	}
	return name
}

// quoted returns the length of the string that the text begins with.
func (s *lineScan) quoted() int {
	quote := s.text[:1]
	if three := strings.Repeat(quote, 3); strings.HasPrefix(s.text, three) {
		quote = three
	}
	for i := len(quote); i < len(s.text); i++ {
		switch {
		case s.text[i] == '\\' && quote[0] == '"':
			i++
		case strings.HasPrefix(s.text[i:], quote):
			end := i + len(quote)
			// A string in three quotes may end in one or two more.
			for len(quote) == 3 && end < len(s.text) && end < i+5 && s.text[end] == quote[0] {
				end++
			}
			return end
		}
	}
	return len(s.text)
}

// rest skips to the end of the value: of the line, but lists and strings may
// take several.
func (s *lineScan) rest() {
	for depth := 0; s.text != ""; {
		switch c := s.text[0]; {
		case c == '"' || c == '\'':
			s.cut(s.quoted())
		case c == '#':
			s.comment()
		case c == '\n' && depth == 0:
			return
		default:
			if slices.Contains([]byte("[{"), c) {
				depth++
			} else if slices.Contains([]byte("]}"), c) {
				depth--
			}
			s.cut(1)
		}
	}
}
