package pbx

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"centralka/desk"
)

// Config is the telephony part of the configuration file: everything that the
// file owns and the switch reads. Each section's zero value is filled by its
// Default function; Validate reports every mistake at once.
type Config struct {
	SIP          SIPConfig
	RTP          RTPConfig
	Trunks       []TrunkConfig
	Numbers      []NumberConfig
	Announcement AnnouncementConfig
	Queues       []QueueConfig
	Hours        []desk.HoursConfig
	Extensions   []ExtensionConfig
	Dial         DialConfig
	Guard        GuardConfig
	// RefuseUnrecorded is vault.recording_failure = "refuse".
	RefuseUnrecorded bool
	Secrets          Secrets
}

// SIPConfig is [sip]: where the switch listens and how it names itself.
type SIPConfig struct {
	// Addresses that take SIP, each with its transport: "udp://192.0.2.10:5060",
	// "tcp://…", "tls://…". Addresses are explicit; 0.0.0.0 is refused, because
	// answers must leave from the address that was asked.
	Listen []Listener `toml:"listen"`
	// Host or address that others see in Contact, Via and SDP when the switch is
	// behind NAT; empty: the listener's own.
	Advertise string `toml:"advertise"`
	// Realm and domain of the registrar; empty: the first listener's address.
	Domain string `toml:"domain"`
	// How often trunks and registered phones are asked for a sign of life by
	// OPTIONS; "0" is never.
	OptionsInterval time.Duration `toml:"options_interval"`
	// Product name in User-Agent and Server headers.
	UserAgent string `toml:"user_agent"`
	// Certificate chain for tls:// listeners, a PEM file.
	Certificate string `toml:"certificate"`
	// Private key for tls:// listeners, a PEM file.
	Key string `toml:"key"`
}

// RTPConfig is [rtp]: voice.
type RTPConfig struct {
	// First and last UDP port for voice; each call uses four (two legs, RTP and RTCP).
	Ports PortRange `toml:"ports"`
	// Address that others see in SDP when the switch is behind NAT; empty: that of
	// sip.advertise, or the listener's own.
	Advertise string `toml:"advertise"`
	// A call ends when a party that may send voice was silent, RTCP included, for
	// so long; off while held; "0" is never.
	Timeout time.Duration `toml:"timeout"`
	// Most calls at a time, of every kind; 0 is no limit but ports. Emergency calls
	// are never held back.
	MaxCalls int `toml:"max_calls"`
	// New calls are refused (503, emergency calls excepted) while voice leaves later
	// than this after its time, on average over about two seconds; "0" is never.
	MaxLateness time.Duration `toml:"max_lateness"`
	// DiffServ code point of voice packets (46 is EF, RFC 3246).
	DSCP int `toml:"dscp"`
}

// TrunkConfig is one [[trunk]]: a line to a carrier.
type TrunkConfig struct {
	// Name in logs, status and call records.
	Name string `toml:"name"`
	// Where calls are sent: a host (found by SRV, then by address) or host:port.
	Server string `toml:"server"`
	// Whose requests are this trunk's: networks or addresses, each with an
	// optional port. Never also a phone's.
	From []Source `toml:"from"`
	// Whether to register with the carrier: with user, and the password that the
	// secrets file has under the trunk's name.
	Register bool `toml:"register"`
	// User name for registration and digest authentication.
	User string `toml:"user"`
	// Number presented on outgoing calls, in the form +48914245000 (E.164).
	CallerNumber string `toml:"caller_number"`
	// Most calls at a time, both directions together; 0 is no limit. Emergency
	// calls are never held back.
	MaxCalls int `toml:"max_calls"`
	// Encryption of voice (SRTP, with keys by SDES): "off"; "offer", where both
	// sides can; or "require", which refuses calls in the clear. Keys are only said
	// over TLS, so it needs a server by tls://.
	SRTP string `toml:"srtp"`
}

// NumberConfig is one [[number]]: a number that a trunk delivers. Unknown
// numbers are answered 404.
type NumberConfig struct {
	// The number; any notation.
	Match string `toml:"match"`
	// Where its calls go: "queue:NAME" or "extension:NUMBER".
	Target string `toml:"target"`
	// WAV of an announcement of its own; empty: the one of [announcement].
	Announcement string `toml:"announcement"`
	// Added to the priority of the queue that its callers wait in.
	Priority int `toml:"priority"`
}

// AnnouncementConfig is [announcement]: Zarz. 284/17 §1 ust. 4.
type AnnouncementConfig struct {
	// WAV, 8 kHz mono 16 bit, one second or longer; empty: the embedded
	// recording of the text in force.
	File string `toml:"file"`
	// SHA-256 of that file; required when file is set.
	SHA256 string `toml:"sha256"`
	// Play it as early media, before the call is answered. Not available in this
	// version.
	EarlyMedia bool `toml:"early_media"`
	// WAV played to the called party of outgoing calls; empty: none (S1.4-i).
	Outgoing string `toml:"outgoing"`
}

// QueueConfig is one [[queue]].
type QueueConfig struct {
	// Name, used in targets.
	Name string `toml:"name"`
	// Who is offered a call: "longest-idle", "round-robin", or "ring-all" for
	// everybody who is ready.
	Strategy string `toml:"strategy"`
	// Extensions of the agents.
	Members []string `toml:"members"`
	// How long an agent's phone rings before another is tried.
	RingTimeout time.Duration `toml:"ring_timeout"`
	// Rest after a call before the next offer.
	WrapUp time.Duration `toml:"wrap_up"`
	// Unanswered offers in a row after which an agent becomes away; 0 is never.
	AutoAwayAfter int `toml:"auto_away_after"`
	// Priority of its callers: an agent of several queues serves the higher one
	// first, among equals who has waited longest. Whoever has waited for ten
	// minutes is not passed over any more.
	Priority int `toml:"priority"`
	// Longest wait before overflow; "0" is no limit.
	MaxWait time.Duration `toml:"max_wait"`
	// Most callers waiting; further ones overflow; 0 is no limit.
	MaxLength int `toml:"max_length"`
	// Where callers go after max_wait or beyond max_length: "queue:NAME",
	// "extension:NUMBER", or "" for the closing message.
	Overflow string `toml:"overflow"`
	// Name of the [[hours]] it is open in; empty: always.
	Hours string `toml:"hours"`
	// WAV that an agent hears who has answered one of its calls, before the caller
	// is put through: 8 kHz mono 16 bit, ten seconds at most; empty: none.
	Whisper string `toml:"whisper"`
}

// ExtensionConfig is one [[extension]]: a desk phone's account. Its password
// stands in the secrets file.
type ExtensionConfig struct {
	// Number, two to six digits; also the user name for registration.
	Number string `toml:"number"`
	// Name shown on the console and on other phones.
	Name string `toml:"name"`
	// Whether it takes queue calls.
	Agent bool `toml:"agent"`
	// When its agent becomes ready: "on-register", that is as soon as the phone is
	// there, or "on-login".
	Ready string `toml:"ready"`
	// Digest that its phone is asked for: "any" (SHA-256 and MD5) or "md5", for a
	// phone older than RFC 8760 that gives up at a challenge it does not know.
	Digest string `toml:"digest"`
	// Encryption of its voice (SRTP): "off"; "offer", where the phone can; or
	// "require", which refuses calls in the clear. It works for a phone that
	// registers by TLS: of one that does not, "offer" is "off" and "require" refuses
	// every call.
	SRTP string `toml:"srtp"`
	// Most calls at a time.
	MaxCalls int `toml:"max_calls"`
	// Most devices registered at a time.
	Contacts int `toml:"contacts"`
}

// DialConfig is [dial]: what phones may dial.
type DialConfig struct {
	// Prefix for numbers outside; empty: none.
	OutsidePrefix string `toml:"outside_prefix"`
	// Emergency numbers: with and without prefix, before every rule, never limited.
	Emergency []string `toml:"emergency"`
	// Beginnings of E.164 numbers that may be called.
	Allow []string `toml:"allow"`
	// Beginnings that may not, within those allowed (premium numbers).
	Block []string `toml:"block"`
	// Most outgoing calls of one extension at a time.
	MaxOutgoingPerExtension int `toml:"max_outgoing_per_extension"`
	// Whether calls between two extensions are recorded too: the caller is in the
	// left lane then. The ordinance speaks of calls that come in and go out (S1.3-e).
	RecordInternal bool `toml:"record_internal"`
}

// GuardConfig is [guard]: who is listened to.
type GuardConfig struct {
	// Networks that are never banned and always answered as the RFC says; trunks
	// and registered phones are implied.
	Trusted []netip.Prefix `toml:"trusted"`
	// Networks from which phones may register, not those of trunks; empty: any.
	Phones []netip.Prefix `toml:"phones"`
	// Whether sources that fail to authenticate are ignored for a growing time.
	Bans bool `toml:"bans"`
}

// Secrets are the passwords of the secrets file.
type Secrets struct {
	// Extensions maps an extension to its password.
	Extensions map[string]string `toml:"extension"`
	// Trunks maps a trunk's name to its password.
	Trunks map[string]string `toml:"trunk"`
}

// Listener is a transport and an explicit address: "udp://192.0.2.10:5060".
type Listener struct {
	Transport string // "udp", "tcp" or "tls"
	Addr      netip.AddrPort
}

// UnmarshalText reads transport://address:port.
func (l *Listener) UnmarshalText(b []byte) error {
	transport, addr, ok := strings.Cut(string(b), "://")
	if !ok || (transport != "udp" && transport != "tcp" && transport != "tls") {
		return fmt.Errorf("%q is not of the form udp://ADDRESS:PORT, tcp://… or tls://…", b)
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("%q: %q is not ADDRESS:PORT with a numeric address", b, addr)
	}
	if ap.Addr().IsUnspecified() {
		return fmt.Errorf("%q: name one address; with several listeners there can be several", b)
	}
	*l = Listener{transport, ap}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (l Listener) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

func (l Listener) String() string { return l.Transport + "://" + l.Addr.String() }

// Source is a network with an optional port: "198.51.100.0/24",
// "127.0.0.2:5080", "[2001:db8::1]:5060", "2001:db8::/48".
type Source struct {
	Prefix netip.Prefix
	Port   uint16 // 0 is any
}

// UnmarshalText reads the forms above.
func (s *Source) UnmarshalText(b []byte) error {
	text := string(b)
	if p, err := netip.ParsePrefix(text); err == nil {
		*s = Source{Prefix: p.Masked()}
		return nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		*s = Source{Prefix: netip.PrefixFrom(a, a.BitLen())}
		return nil
	}
	if ap, err := netip.ParseAddrPort(text); err == nil && ap.Addr().Zone() == "" && ap.Port() != 0 {
		a := ap.Addr().Unmap()
		*s = Source{Prefix: netip.PrefixFrom(a, a.BitLen()), Port: ap.Port()}
		return nil
	}
	return fmt.Errorf("%q is not a network, an address or ADDRESS:PORT", text)
}

// MarshalText writes what UnmarshalText reads.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Source) String() string {
	switch {
	case s.Port != 0:
		return netip.AddrPortFrom(s.Prefix.Addr(), s.Port).String()
	case s.Prefix.IsSingleIP():
		return s.Prefix.Addr().String()
	}
	return s.Prefix.String()
}

// Contains reports whether a packet from addr comes from this source.
func (s Source) Contains(addr netip.AddrPort) bool {
	return s.Prefix.Contains(addr.Addr().Unmap()) && (s.Port == 0 || s.Port == addr.Port())
}

// PortRange is "first-last", both included.
type PortRange struct{ First, Last uint16 }

// UnmarshalText reads "20000-29999".
func (r *PortRange) UnmarshalText(b []byte) error {
	first, last, ok := strings.Cut(string(b), "-")
	f, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	l, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if !ok || err1 != nil || err2 != nil || f < 1024 || l < f+3 {
		return fmt.Errorf("%q is not a range of at least four ports from 1024 to 65535", b)
	}
	*r = PortRange{uint16(f), uint16(l)}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// DefaultConfig returns a Config with every default; lists are empty.
func DefaultConfig() Config {
	return Config{
		SIP:   SIPConfig{OptionsInterval: 30 * time.Second, UserAgent: "centralka"},
		RTP:   RTPConfig{Ports: PortRange{20000, 29999}, Timeout: 60 * time.Second, DSCP: 46, MaxLateness: defaultLateness},
		Dial:  DialConfig{OutsidePrefix: "0", Emergency: []string{"112", "997", "998", "999"}, Allow: []string{"+48"}, Block: []string{"+4870", "+4830", "+4840"}, MaxOutgoingPerExtension: 2},
		Guard: GuardConfig{Bans: true},
	}
}

// DefaultTrunk returns the defaults of a [[trunk]].
func DefaultTrunk() TrunkConfig { return TrunkConfig{MaxCalls: 60, SRTP: "off"} }

// DefaultQueue returns the defaults of a [[queue]].
func DefaultQueue() QueueConfig {
	return QueueConfig{Strategy: "longest-idle", RingTimeout: 20 * time.Second, MaxWait: 15 * time.Minute, MaxLength: 50}
}

// DefaultExtension returns the defaults of an [[extension]].
func DefaultExtension() ExtensionConfig {
	return ExtensionConfig{Agent: true, Ready: "on-register", Digest: "any", SRTP: "off", MaxCalls: 2, Contacts: 3}
}

// Mistake is one wrong value: where it stands in the file and what is wrong.
type Mistake struct {
	Key  string // e.g. "trunk[0].from"
	Text string
}

func (m Mistake) Error() string { return m.Key + ": " + m.Text }

// Validate checks the sections against each other. It returns all mistakes
// joined (errors.Join of Mistake), nil if there are none.
func (c *Config) Validate() error {
	var errs []error
	c.validate(func(key, format string, args ...any) {
		errs = append(errs, Mistake{key, fmt.Sprintf(format, args...)})
	}, func(string, string, ...any) {})
	return errors.Join(errs...)
}

// Warnings lists what is allowed and hardly meant.
func (c *Config) Warnings() []Mistake {
	var list []Mistake
	c.validate(func(string, string, ...any) {}, func(key, format string, args ...any) {
		list = append(list, Mistake{key, fmt.Sprintf(format, args...)})
	})
	return list
}
