package pbxtest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/srtp/v3"
)

// Crypto is one a=crypto line of an SDP (RFC 4568 §4): a tag, a suite by its name,
// master key and salt.
type Crypto struct {
	Tag   int
	Suite string
	Key   []byte
}

// suites are those that a Voice can speak: length of key and of salt, profile.
var suites = map[string]struct {
	key, salt int
	profile   srtp.ProtectionProfile
}{
	"AEAD_AES_128_GCM":        {16, 12, srtp.ProtectionProfileAeadAes128Gcm},
	"AEAD_AES_256_GCM":        {32, 12, srtp.ProtectionProfileAeadAes256Gcm},
	"AES_CM_128_HMAC_SHA1_80": {16, 14, srtp.ProtectionProfileAes128CmHmacSha1_80},
	"AES_CM_128_HMAC_SHA1_32": {16, 14, srtp.ProtectionProfileAes128CmHmacSha1_32},
	"AES_256_CM_HMAC_SHA1_80": {32, 14, srtp.ProtectionProfileAes256CmHmacSha1_80},
}

// parseCrypto reads a line that we could use; others are none of ours.
func parseCrypto(arg string) (Crypto, bool) {
	f := strings.Fields(arg)
	if len(f) != 3 {
		return Crypto{}, false
	}
	tag, err := strconv.Atoi(f[0])
	s, known := suites[f[1]]
	text, inline := strings.CutPrefix(f[2], "inline:")
	key, err2 := base64.StdEncoding.DecodeString(text)
	if err != nil || err2 != nil || !known || !inline || len(key) != s.key+s.salt {
		return Crypto{}, false
	}
	return Crypto{tag, f[1], key}, true
}

func (c Crypto) line() string {
	return fmt.Sprintf("a=crypto:%d %s inline:%s\r\n", c.Tag, c.Suite, base64.StdEncoding.EncodeToString(c.Key))
}

func (c Crypto) equal(o Crypto) bool { return c.Suite == o.Suite && bytes.Equal(c.Key, o.Key) }

func (c Crypto) context() (*srtp.Context, error) {
	s := suites[c.Suite]
	return srtp.CreateContext(c.Key[:s.key], c.Key[s.key:], s.profile)
}

// pair finds the line that both sides have agreed on: ours and theirs under one
// tag and suite.
func pair(ours, theirs []Crypto) (our, their Crypto, ok bool) {
	for _, t := range theirs {
		for _, o := range ours {
			if o.Tag == t.Tag && o.Suite == t.Suite {
				return o, t, true
			}
		}
	}
	return our, their, false
}

// ownKey is the key with which the call sends by a suite; it stays until
// ChangeKey.
func (c *Call) ownKey(suite string) []byte {
	if c.keys == nil {
		c.keys = map[string][]byte{}
	}
	if c.keys[suite] == nil {
		b := make([]byte, suites[suite].key+suites[suite].salt)
		for i := range b {
			b[i] = byte(c.peer.rnd.Uint32())
		}
		c.keys[suite] = b
	}
	return c.keys[suite]
}

// ChangeKey draws new keys: the next SDP says them.
func (c *Call) ChangeKey() {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	c.keys = nil
}

// offerKeys puts the a=crypto lines of an offer into our description.
func (c *Call) offerKeys() {
	c.desc.crypto, c.desc.profile = nil, "RTP/AVP"
	for i, suite := range c.voice.cfg.SRTP {
		c.desc.crypto = append(c.desc.crypto, Crypto{i + 1, suite, c.ownKey(suite)})
	}
	if len(c.desc.crypto) > 0 && !c.voice.cfg.BestEffort {
		c.desc.profile = "RTP/SAVP"
	}
}

// answerKeys chooses among the keys of their offer; false: we cannot speak what
// they want.
func (c *Call) answerKeys(s *SDP) bool {
	c.desc.crypto, c.desc.profile = nil, s.Profile
	for _, t := range s.Crypto {
		if slices.Contains(c.voice.cfg.SRTP, t.Suite) {
			c.desc.crypto = []Crypto{{t.Tag, t.Suite, c.ownKey(t.Suite)}}
			return true
		}
	}
	return s.Profile == "RTP/AVP"
}

// speaks reports whether we can answer that offer.
func (v Voice) speaks(s *SDP) bool {
	return s.Profile == "RTP/AVP" || slices.ContainsFunc(s.Crypto, func(t Crypto) bool { return slices.Contains(v.SRTP, t.Suite) })
}

// secrecy is the SRTP of one endpoint; its lock guards it.
type secrecy struct {
	ours, theirs Crypto
	out, in      *srtp.Context
	tamper       func(packet []byte) []byte
}

// rekey takes what was agreed; a key that stays keeps its context.
func (s *secrecy) rekey(ours, theirs Crypto) error {
	var err1, err2 error
	if !ours.equal(s.ours) {
		if s.ours, s.out = ours, nil; ours.Suite != "" {
			s.out, err1 = ours.context()
		}
	}
	if !theirs.equal(s.theirs) {
		if s.theirs, s.in = theirs, nil; theirs.Suite != "" {
			s.in, err2 = theirs.context()
		}
	}
	if err1 != nil {
		return err1
	}
	return err2
}

// seal makes what goes over the wire of an RTP packet.
func (s *secrecy) seal(b []byte) []byte {
	if len(b) > 0 && s.out != nil {
		sealed, err := s.out.EncryptRTP(nil, b, nil)
		if err != nil {
			return nil
		}
		b = append(b[:0], sealed...)
	}
	if len(b) > 0 && s.tamper != nil {
		b = s.tamper(b)
	}
	return b
}

// open is the inverse.
func (s *secrecy) open(b []byte) ([]byte, error) {
	if s.in == nil {
		return b, nil
	}
	return s.in.DecryptRTP(nil, b, nil)
}

// Tamper changes each RTP packet that the call sends, when it is ready for the
// wire; nil ends that.
func (c *Call) Tamper(f func(packet []byte) []byte) {
	c.voice.mu.Lock()
	defer c.voice.mu.Unlock()
	c.voice.secret.tamper = f
}

// SendWithWrongKey lets the call send with a key that it has not said.
func (c *Call) SendWithWrongKey() error {
	c.voice.mu.Lock()
	defer c.voice.mu.Unlock()
	wrong := c.voice.secret.ours
	wrong.Key = bytes.Clone(wrong.Key)
	wrong.Key[0] ^= 1
	var err error
	c.voice.secret.out, err = wrong.context()
	return err
}

// Suite is what the call speaks: a suite by its name, empty for RTP in the clear.
func (c *Call) Suite() string {
	c.voice.mu.Lock()
	defer c.voice.mu.Unlock()
	return c.voice.secret.ours.Suite
}
