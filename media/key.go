package media

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/pion/srtp/v3"
)

// Suite is how a stream is protected in one direction: cipher, key size and
// authentication of its SRTP (RFC 3711).
type Suite uint8

// The suites that we speak. The names are those of SDP.
const (
	NoSuite    Suite = iota
	AES128GCM        // AEAD_AES_128_GCM (RFC 7714)
	AES256GCM        // AEAD_AES_256_GCM (RFC 7714)
	AES128CM80       // AES_CM_128_HMAC_SHA1_80 (RFC 4568 §6.2.1)
	AES128CM32       // AES_CM_128_HMAC_SHA1_32 (RFC 4568 §6.2.2)
	AES256CM80       // AES_256_CM_HMAC_SHA1_80 (RFC 6188)
	AES256CM32       // AES_256_CM_HMAC_SHA1_32 (RFC 6188)
	lastSuite  = AES256CM32
)

// maxKey is the longest master key with its salt, in bytes.
const maxKey = 32 + 14

// suites are the properties of each Suite: its name in SDP; the sizes of master
// key, master salt and the tags of RTP and RTCP in bytes; what pion calls it.
var suites = [lastSuite + 1]struct {
	name         string
	key, salt    int
	tag, tagRTCP int
	profile      srtp.ProtectionProfile
}{
	NoSuite:    {name: "none"},
	AES128GCM:  {"AEAD_AES_128_GCM", 16, 12, 16, 16, srtp.ProtectionProfileAeadAes128Gcm},
	AES256GCM:  {"AEAD_AES_256_GCM", 32, 12, 16, 16, srtp.ProtectionProfileAeadAes256Gcm},
	AES128CM80: {"AES_CM_128_HMAC_SHA1_80", 16, 14, 10, 10, srtp.ProtectionProfileAes128CmHmacSha1_80},
	AES128CM32: {"AES_CM_128_HMAC_SHA1_32", 16, 14, 4, 10, srtp.ProtectionProfileAes128CmHmacSha1_32},
	AES256CM80: {"AES_256_CM_HMAC_SHA1_80", 32, 14, 10, 10, srtp.ProtectionProfileAes256CmHmacSha1_80},
	AES256CM32: {"AES_256_CM_HMAC_SHA1_32", 32, 14, 4, 10, srtp.ProtectionProfileAes256CmHmacSha1_32},
}

// ParseSuite finds a suite by its name in SDP; false if we do not speak it.
func ParseSuite(name string) (Suite, bool) {
	for s := NoSuite + 1; s <= lastSuite; s++ {
		if suites[s].name == name {
			return s, true
		}
	}
	return NoSuite, false
}

// String is the name in SDP.
func (s Suite) String() string {
	if s > lastSuite {
		return "unknown"
	}
	return suites[s].name
}

// KeyBytes is the length of master key and salt together.
func (s Suite) KeyBytes() int {
	if s > lastSuite {
		return 0
	}
	return suites[s].key + suites[s].salt
}

// Key is what SRTP of one direction is made from: a suite, a master key and a
// master salt. The zero value means RTP in the clear. A Key never shows its
// secret when it, or anything that holds it, is printed or logged; it is not
// changed once made, and copies may be kept anywhere.
type Key struct {
	suite Suite
	// The secret is behind a function because fmt prints what is within an
	// unexported field of another type without asking for our Format, and with
	// some verbs follows pointers.
	secret func() *[maxKey]byte
}

// holding makes a key; b is kept.
func holding(s Suite, b *[maxKey]byte) Key {
	return Key{suite: s, secret: func() *[maxKey]byte { return b }}
}

// NewKey makes a key from the system's random numbers.
func NewKey(s Suite) Key {
	var b [maxKey]byte
	// It never fails: the program ends if the system has no random numbers.
	_, _ = rand.Read(b[:s.KeyBytes()])
	return holding(s, &b)
}

// ParseKey makes a key from a master key followed by its salt, as SDP carries
// them. It does not keep b.
func ParseKey(s Suite, b []byte) (Key, error) {
	if s == NoSuite || len(b) != s.KeyBytes() {
		return Key{}, fmt.Errorf("SRTP key of %d bytes for %s, which takes %d", len(b), s, s.KeyBytes())
	}
	var secret [maxKey]byte
	copy(secret[:], b)
	return holding(s, &secret), nil
}

// Suite is NoSuite for the zero value.
func (k Key) Suite() Suite { return k.suite }

// Bytes is a copy of master key and salt, for SDP over a confidential way.
func (k Key) Bytes() []byte {
	if k.secret == nil {
		return nil
	}
	return append([]byte(nil), k.secret()[:k.suite.KeyBytes()]...)
}

// Equal reports whether both are the same suite and secret.
func (k Key) Equal(o Key) bool {
	if k.suite != o.suite || k.secret == nil || o.secret == nil {
		return k.suite == o.suite && k.secret == nil && o.secret == nil
	}
	return subtle.ConstantTimeCompare(k.secret()[:], o.secret()[:]) == 1
}

// String names the suite.
func (k Key) String() string { return k.suite.String() }

// Format writes String whatever the verb.
func (k Key) Format(f fmt.State, _ rune) {
	// A writer of fmt does not fail.
	_, _ = io.WriteString(f, k.String())
}

// MarshalText writes String: no encoder gets at more.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
