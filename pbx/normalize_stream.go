package pbx

import (
	"bytes"
	"net/netip"
)

// streamText cuts a TCP or TLS stream into messages, each normalised as a
// datagram is. It is owned by the goroutine that reads the connection; it holds
// at most one message of 64 KiB and what was pushed behind it.
type streamText struct {
	buf     []byte
	scanned int      // no head ends before this index
	end     int      // of the head that was found, 0 before
	scan    textScan // of that head
	lost    bool
}

// push appends what was read. Call next until it returns textPartial before the
// next push.
func (s *streamText) push(chunk []byte) { s.buf = append(s.buf, chunk...) }

// next takes one message from the stream: textRequest or textResponse with its
// text, textKeepAlive with the pong to send, textMalformed or textLost with the
// bytes for malformedResponse, textPartial if more is needed. What it returns is
// valid until the next push.
func (s *streamText) next() ([]byte, textKind) {
	if s.lost {
		return nil, textPartial
	}
	for bytes.HasPrefix(s.buf, []byte("\r\n")) {
		if bytes.HasPrefix(s.buf, []byte("\r\n\r\n")) {
			s.drop(4)
			return []byte("\r\n"), textKeepAlive
		}
		if len(s.buf) < 4 && (len(s.buf) == 2 || s.buf[2] == '\r') {
			return nil, textPartial // perhaps half a ping
		}
		s.drop(2)
	}
	if len(s.buf) < 16 && len(bytes.Trim(s.buf, "\r\n \t\x00")) == 0 {
		return nil, textPartial
	}
	if s.end == 0 {
		if !s.findHead() {
			if len(s.buf) > textMaxBytes {
				return s.lose()
			}
			return nil, textPartial
		}
		s.scan = scanText(s.buf[:s.end])
	}
	scan, end := s.scan, s.end
	if scan.kind == textGarbage || scan.length < 0 || scan.length > textMaxBytes-end {
		// Without a Content-Length nobody knows where the message ends
		// (RFC 3261 §18.3).
		return s.lose()
	}
	if len(s.buf) < end+scan.length {
		return nil, textPartial
	}
	msg := s.buf[:end+scan.length]
	s.drop(end + scan.length)
	if scan.kind == textMalformed || scan.ready {
		return msg, scan.kind
	}
	out := append(rewriteHead(msg[:end]), msg[end:]...)
	if len(out) > textMaxBytes {
		return msg, scan.refuse()
	}
	return out, scan.kind
}

// feed is push and next in one: out is what the parser may have now, reply is to
// be written back (pongs, answers to what cannot be parsed), and ok is false if
// the stream is lost: close it after the reply. admit is asked about each
// message and may alter it; one that it refuses ends the stream, unanswered.
func (s *streamText) feed(chunk []byte, source netip.AddrPort, admit func(msg []byte) ([]byte, bool)) (out, reply []byte, ok bool) {
	s.push(chunk)
	for {
		msg, kind := s.next()
		switch kind {
		case textPartial:
			return out, reply, !s.lost
		case textKeepAlive:
			reply = append(reply, msg...)
			continue
		}
		text, ok := admit(msg)
		if !ok {
			s.lost = true
			return out, reply, false
		}
		switch kind {
		case textRequest, textResponse:
			out = append(out, text...)
		case textMalformed, textLost:
			reply = append(reply, malformedResponse(msg, source)...)
		}
	}
}

// partial tells whether a message has begun and is not whole.
func (s *streamText) partial() bool { return len(s.buf) > 0 && !s.lost }

// findHead looks for the end of the empty line behind the head.
func (s *streamText) findHead() bool {
	for {
		line, next, ok := cutLine(s.buf, s.scanned)
		if !ok {
			return false
		}
		if len(line.text) == 0 {
			s.end = next
			return true
		}
		s.scanned = next
	}
}

func (s *streamText) drop(n int) {
	// What was returned stays valid: push appends behind it or moves away.
	s.buf, s.scanned, s.end = s.buf[n:], 0, 0
}

func (s *streamText) lose() ([]byte, textKind) {
	s.lost = true
	return s.buf[:min(len(s.buf), textMaxBytes)], textLost
}
