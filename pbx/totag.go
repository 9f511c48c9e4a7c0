package pbx

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// tagMaker makes the To-tags of the dialogs that peers begin. A tag follows from
// what is the same in an INVITE and in its CANCEL, and from a key that nobody
// else has, so that it cannot be guessed (RFC 3261 §19.3): sipgo answers a CANCEL
// by itself, and that answer has to carry the tag of the INVITE's responses
// (RFC 3261 §9.2).
type tagMaker struct{ key [32]byte }

func newTagMaker() *tagMaker {
	m := &tagMaker{}
	rand.Read(m.key[:]) // never fails (crypto/rand, Go 1.24)
	return m
}

// toTag is the tag for the request of a Call-ID, From-tag and CSeq number.
func (m *tagMaker) toTag(callID, fromTag string, seq uint32) string {
	h := hmac.New(sha256.New, m.key[:])
	h.Write([]byte(mergeKey(callID, fromTag, seq)))
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// tagCancel puts the tag into a CANCEL of an INVITE outside of dialogs, from
// where sipgo copies it into its 200. text is normalised; anything else is
// returned as it is.
func (m *tagMaker) tagCancel(text []byte) []byte {
	if !bytes.HasPrefix(text, []byte("CANCEL ")) {
		return text
	}
	var callID, from, seq string
	var end int // of the To line
	at := 0
	for at < len(text) {
		line, _, _ := bytes.Cut(text[at:], []byte{'\n'})
		next := at + len(line) + 1
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 {
			break
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok {
			at = next
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "call-id", "i":
			callID = value
		case "cseq":
			seq, _, _ = strings.Cut(value, " ")
		case "from", "f":
			from = tagIn(value)
		case "to", "t":
			if tagIn(value) != "" {
				return text // of a re-INVITE
			}
			end = at + len(line)
		}
		at = next
	}
	n, err := strconv.ParseUint(seq, 10, 32)
	if err != nil || end == 0 || callID == "" {
		return text // validate says what is wrong with it
	}
	tag := ";tag=" + m.toTag(callID, from, uint32(n))
	return append(append(bytes.Clone(text[:end]), tag...), text[end:]...)
}

// tagIn is the tag of a From or To value; empty if there is none.
func tagIn(value string) string {
	var uri sip.Uri
	params := sip.NewParams()
	if _, err := sip.ParseAddressValue(value, &uri, &params); err != nil {
		return ""
	}
	tag, _ := params.Get("tag")
	return tag
}
