package pbx

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/desk"
)

// office is a configuration without mistake and without warning.
func office() Config {
	c := DefaultConfig()
	c.SIP.Listen = []Listener{{"udp", netip.MustParseAddrPort("192.0.2.10:5060")}}
	trunk := DefaultTrunk()
	trunk.Name, trunk.Server, trunk.CallerNumber = "operator", "sip.operator.example:5070", "+48914245000"
	trunk.From = []Source{{Prefix: netip.MustParsePrefix("198.51.100.0/24")}}
	c.Trunks = []TrunkConfig{trunk}
	c.Numbers = []NumberConfig{{Match: "91 424 50 00", Target: "queue:cim"}, {Match: "+48914245101", Target: "extension:101"}}
	queue := DefaultQueue()
	queue.Name, queue.Members, queue.Hours = "cim", []string{"101", "102"}, "cim"
	second := queue
	second.Name, second.Overflow = "second", "queue:cim"
	c.Queues = []QueueConfig{queue, second}
	c.Hours = []desk.HoursConfig{{Name: "cim", Week: []string{"mon-fri 07:30-15:30"}, Holidays: "pl"}}
	for _, n := range []string{"101", "102"} {
		e := DefaultExtension()
		e.Number = n
		c.Extensions = append(c.Extensions, e)
	}
	c.Guard.Phones = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	c.Secrets = Secrets{Extensions: map[string]string{"101": "długie hasło 1", "102": "długie hasło 2"}, Trunks: map[string]string{}}
	return c
}

func TestConfigTakesTheOffice(t *testing.T) {
	c := office()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	for _, w := range c.Warnings() {
		t.Error("warning:", w)
	}
}

// TestConfigMistakes: each mistake is reported at its key, alone, and says what is
// wrong.
func TestConfigMistakes(t *testing.T) {
	source := func(text string) Source {
		var s Source
		if err := s.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, tc := range []struct {
		key, text string
		spoil     func(c *Config)
	}{
		{"sip.listen", "is missing", func(c *Config) { c.SIP.Listen = nil }},
		{"sip.listen[1]", "twice", func(c *Config) { c.SIP.Listen = append(c.SIP.Listen, c.SIP.Listen[0]) }},
		{"sip.listen[0]", "port is missing", func(c *Config) { c.SIP.Listen[0].Addr = netip.MustParseAddrPort("192.0.2.10:0") }},
		{"sip.listen[0]", "lies in rtp.ports", func(c *Config) { c.SIP.Listen[0].Addr = netip.MustParseAddrPort("192.0.2.10:20000") }},
		{"sip.certificate", "needs sip.certificate and sip.key", func(c *Config) {
			c.SIP.Listen = append(c.SIP.Listen, Listener{"tls", netip.MustParseAddrPort("192.0.2.10:5061")})
		}},
		{"trunk[0].server", "goes by tcp, for which", func(c *Config) { c.Trunks[0].Server = "tcp://sip.operator.example" }},
		{"trunk[0].server", "goes by udp, for which", func(c *Config) { c.SIP.Listen[0].Transport = "tcp" }},
		{"trunk[0].server", "family of addresses", func(c *Config) { c.Trunks[0].Server = "[2001:db8::1]:5060" }},
		{"trunk[0].server", "in front", func(c *Config) { c.Trunks[0].Server = "sips://sip.operator.example" }},
		{"sip.certificate", "together", func(c *Config) { c.SIP.Key = "key.pem" }},
		{"sip.advertise", "host name", func(c *Config) { c.SIP.Advertise, c.RTP.Advertise = "192.0.2.1:5060", "192.0.2.1" }},
		{"sip.domain", "host name", func(c *Config) { c.SIP.Domain = "szczecin pl" }},
		{"sip.options_interval", "negative", func(c *Config) { c.SIP.OptionsInterval = -time.Second }},
		{"sip.user_agent", "control", func(c *Config) { c.SIP.UserAgent = "a\r\nb" }},
		{"rtp.ports", "is missing", func(c *Config) { c.RTP.Ports = PortRange{} }},
		{"rtp.advertise", "not an address", func(c *Config) { c.RTP.Advertise = "example.org" }},
		{"rtp.timeout", "negative", func(c *Config) { c.RTP.Timeout = -1 }},
		{"rtp.dscp", "0 to 63", func(c *Config) { c.RTP.DSCP = 64 }},
		{"trunk[0].name", "is missing", func(c *Config) { c.Trunks[0].Name = "" }},
		{"trunk[0].name", "no spaces", func(c *Config) { c.Trunks[0].Name = "a b" }},
		{"trunk[0].server", "host or host:port", func(c *Config) { c.Trunks[0].Server = "sip:operator.example" }},
		{"trunk[0].server", "host or host:port", func(c *Config) { c.Trunks[0].Server = "operator.example:0" }},
		{"trunk[0].from", "is missing", func(c *Config) { c.Trunks[0].From = nil }},
		{"trunk[0].from[0]", "everybody", func(c *Config) { c.Trunks[0].From[0] = source("0.0.0.0/0") }},
		{"trunk[0].from[1]", "network of phones", func(c *Config) { c.Trunks[0].From = append(c.Trunks[0].From, source("192.0.2.0/24")) }},
		{"trunk[0].from[0]", "network of phones", func(c *Config) {
			c.Guard.Phones = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
			c.Trunks[0].From[0] = source("192.0.2.7")
		}},
		{"trunk[1].from[0]", "also in trunk[0].from", func(c *Config) {
			other := c.Trunks[0]
			other.Name, other.From = "other", []Source{source("198.51.100.7:5060")}
			c.Trunks = append(c.Trunks, other)
		}},
		{"trunk[1].name", "also that of trunk[0]", func(c *Config) {
			other := c.Trunks[0]
			other.From = []Source{source("203.0.113.7:5060")}
			c.Trunks = append(c.Trunks, other)
		}},
		{"trunk[0].register", "needs a password", func(c *Config) { c.Trunks[0].Register, c.Trunks[0].User = true, "u" }},
		{"trunk[0].user", "needs a user", func(c *Config) {
			c.Trunks[0].Register, c.Secrets.Trunks["operator"] = true, "secret"
		}},
		{"trunk[0].user", "there is no user", func(c *Config) { c.Secrets.Trunks["operator"] = "secret" }},
		{"trunk[0].caller_number", "E.164", func(c *Config) { c.Trunks[0].CallerNumber = "914245000" }},
		{"trunk[0].max_calls", "too small", func(c *Config) { c.Trunks[0].MaxCalls = -1 }},
		{"trunk[0].srtp", "no tls:// listener", func(c *Config) { c.Trunks[0].SRTP = "offer" }},
		{"trunk[0].srtp", "server = \"tls://", func(c *Config) {
			c.SIP.Listen = append(c.SIP.Listen, Listener{"tls", netip.MustParseAddrPort("192.0.2.10:5061")})
			c.SIP.Certificate, c.SIP.Key, c.Trunks[0].SRTP = "cert.pem", "key.pem", "require"
		}},
		{"extension[0].srtp", "no tls:// listener", func(c *Config) { c.Extensions[0].SRTP = "require" }},
		{"extension[0].srtp", "is not known", func(c *Config) { c.Extensions[0].SRTP = "yes" }},
		{"trunk[0].srtp", "is not known", func(c *Config) { c.Trunks[0].SRTP = "on" }},
		{"secrets.trunk.nobody", "no trunk", func(c *Config) { c.Secrets.Trunks["nobody"] = "secret" }},
		{"number[0].match", "not a telephone number", func(c *Config) { c.Numbers[0].Match = "urząd" }},
		{"number[1].match", "same number as that of number[0]", func(c *Config) { c.Numbers[1].Match = "0048 914245000" }},
		{"number[0].target", "no such queue", func(c *Config) { c.Numbers[0].Target = "queue:kim" }},
		{"number[0].target", "no such extension", func(c *Config) { c.Numbers[0].Target = "extension:109" }},
		{"number[0].target", "form", func(c *Config) { c.Numbers[0].Target = "cim" }},
		{"number[0].target", "is missing", func(c *Config) { c.Numbers[0].Target = "" }},
		{"announcement.sha256", "is missing", func(c *Config) { c.Announcement.File = "komunikat.wav" }},
		{"announcement.sha256", "64 hexadecimal", func(c *Config) { c.Announcement.File, c.Announcement.SHA256 = "komunikat.wav", "abc" }},
		{"announcement.sha256", "no announcement.file", func(c *Config) { c.Announcement.SHA256 = strings.Repeat("ab", 32) }},
		{"announcement.early_media", "not available", func(c *Config) { c.Announcement.EarlyMedia = true }},
		{"queue[0].strategy", "is not known", func(c *Config) { c.Queues[0].Strategy = "random" }},
		{"queue[0].members[1]", "no such extension", func(c *Config) { c.Queues[0].Members = []string{"101", "103"} }},
		{"queue[0].members[1]", "twice", func(c *Config) { c.Queues[0].Members = []string{"101", "101"} }},
		{"queue[0].ring_timeout", "longer than 0", func(c *Config) { c.Queues[0].RingTimeout = 0 }},
		{"queue[0].wrap_up", "negative", func(c *Config) { c.Queues[0].WrapUp = -1 }},
		{"queue[0].max_wait", "negative", func(c *Config) { c.Queues[0].MaxWait = -1 }},
		{"queue[0].max_length", "too small", func(c *Config) { c.Queues[0].MaxLength = -1 }},
		{"queue[0].announce_position", "too often", func(c *Config) { c.Queues[0].AnnouncePosition = 14 * time.Second }},
		{"queue[0].periodic", "too often", func(c *Config) { c.Queues[0].Periodic = -1 }},
		{"queue[0].auto_away_after", "too small", func(c *Config) { c.Queues[0].AutoAwayAfter = -1 }},
		{"queue[0].overflow", "no such queue", func(c *Config) { c.Queues[0].Overflow = "queue:kim" }},
		{"queue[0].overflow", "cim → second → cim", func(c *Config) { c.Queues[0].Overflow = "queue:second" }},
		{"queue[0].overflow", "cim → cim", func(c *Config) { c.Queues[0].Overflow = "queue:cim" }},
		{"queue[0].hours", "no such", func(c *Config) { c.Queues[0].Hours = "kim" }},
		{"hours[0]", "week \"mon\"", func(c *Config) { c.Hours[0].Week = []string{"mon"} }},
		{"extension[1].number", "also that of extension[0]", func(c *Config) {
			c.Extensions[1].Number = "101"
			delete(c.Secrets.Extensions, "102")
			c.Queues[0].Members, c.Queues[1].Members = []string{"101"}, []string{"101"}
		}},
		{"extension[2].number", "two to six digits", func(c *Config) { addExtension(c, "1o3") }},
		{"extension[2].number", "habitual 0", func(c *Config) {
			c.Dial.OutsidePrefix = "9"
			c.Dial.Emergency = []string{"112"}
			addExtension(c, "0112")
		}},
		{"queue[0].number", "two to six digits", func(c *Config) { c.Queues[0].Number = "*8" }},
		{"queue[0].number", "is an extension", func(c *Config) { c.Queues[0].Number = "101" }},
		{"queue[0].number", "emergency", func(c *Config) { c.Queues[0].Number = "112" }},
		{"queue[0].number", "outside_prefix", func(c *Config) { c.Queues[0].Number = "050" }},
		{"queue[2].number", "also that of queue[0]", func(c *Config) {
			other := c.Queues[0]
			other.Name, other.Overflow = "other", ""
			c.Queues[0].Number, other.Number = "500", "500"
			c.Queues = append(c.Queues, other)
		}},
		{"extension[2].number", "emergency", func(c *Config) { addExtension(c, "112") }},
		{"extension[2].number", "outside_prefix", func(c *Config) { addExtension(c, "012") }},
		{"extension[0].ready", "is not known", func(c *Config) { c.Extensions[0].Ready = "" }},
		{"extension[0].digest", "is not known", func(c *Config) { c.Extensions[0].Digest = "sha1" }},
		{"extension[0].max_calls", "too small", func(c *Config) { c.Extensions[0].MaxCalls = 0 }},
		{"extension[0].contacts", "too small", func(c *Config) { c.Extensions[0].Contacts = 0 }},
		{"extension[0].number", "has no password", func(c *Config) { delete(c.Secrets.Extensions, "101") }},
		{"extension[0].number", "is its number", func(c *Config) { c.Secrets.Extensions["101"] = "101" }},
		{"secrets.extension.109", "no extension", func(c *Config) { c.Secrets.Extensions["109"] = "długie hasło 9" }},
		{"dial.outside_prefix", "digits", func(c *Config) { c.Dial.OutsidePrefix = "x" }},
		{"dial.emergency[0]", "short number", func(c *Config) { c.Dial.Emergency[0], c.Dial.Emergency[1] = "+48112", "112" }},
		{"dial.allow[0]", "E.164", func(c *Config) { c.Dial.Allow = []string{"48", "+"}[:1] }},
		{"dial.block[0]", "E.164", func(c *Config) { c.Dial.Block = []string{"+"} }},
		{"dial.max_outgoing_per_extension", "too small", func(c *Config) { c.Dial.MaxOutgoingPerExtension = -1 }},
	} {
		c := office()
		tc.spoil(&c)
		got := mistakes(c.Validate())
		if len(got) != 1 || got[0].Key != tc.key || !strings.Contains(got[0].Text, tc.text) {
			t.Errorf("want %s: …%s…, got %v", tc.key, tc.text, got)
		}
	}
}

func addExtension(c *Config, number string) {
	e := DefaultExtension()
	e.Number = number
	c.Extensions = append(c.Extensions, e)
	c.Secrets.Extensions[number] = "długie hasło"
}

func mistakes(err error) (list []Mistake) {
	if err == nil {
		return nil
	}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		if m, ok := errors.AsType[Mistake](e); ok {
			list = append(list, m)
		}
	}
	return list
}

func TestConfigWarnings(t *testing.T) {
	for _, tc := range []struct {
		key, text string
		doubtful  func(c *Config)
	}{
		{"sip.options_interval", "attack", func(c *Config) { c.SIP.OptionsInterval = time.Second }},
		{"sip.certificate", "no effect", func(c *Config) { c.SIP.Certificate, c.SIP.Key = "a", "b" }},
		{"rtp.ports", "ports for 25 calls", func(c *Config) { c.RTP.Ports = PortRange{20000, 20099} }},
		{"rtp.timeout", "60s is usual", func(c *Config) { c.RTP.Timeout = time.Second }},
		{"rtp.advertise", "name", func(c *Config) { c.SIP.Advertise = "pbx.example" }},
		{"trunk[0].server", "no call goes out", func(c *Config) { c.Trunks[0].Server = "" }},
		{"trunk[0].caller_number", "no number", func(c *Config) { c.Trunks[0].CallerNumber = "" }},
		{"trunk[0].from[0]", "no phone can register", func(c *Config) { c.Trunks[0].From[0].Prefix = netip.MustParsePrefix("192.0.2.7/32") }},
		{"number", "404", func(c *Config) { c.Numbers = nil }},
		{"queue[0].members", "nobody", func(c *Config) { c.Queues[0].Members = nil }},
		{"queue[0].ring_timeout", "so fast", func(c *Config) { c.Queues[0].RingTimeout = time.Second }},
		{"queue[0].max_wait", "before the first phone", func(c *Config) { c.Queues[0].MaxWait = 10 * time.Second }},
		{"queue[1].overflow", "never used", func(c *Config) { c.Queues[1].MaxWait, c.Queues[1].MaxLength = 0, 0 }},
		{"queue[0].periodic_file", "never played", func(c *Config) { c.Queues[0].PeriodicFile = "prosba.wav" }},
		{"hours[0].week", "never opens", func(c *Config) { c.Hours[0].Week = nil }},
		{"hours[0].name", "no queue", func(c *Config) { c.Queues[0].Hours, c.Queues[1].Hours = "", "" }},
		{"extension[0].number", "shorter", func(c *Config) { c.Secrets.Extensions["101"] = "kot" }},
		{"dial.emergency", "112", func(c *Config) { c.Dial.Emergency = c.Dial.Emergency[1:] }},
		{"dial.allow", "empty", func(c *Config) { c.Dial.Allow, c.Dial.Block = nil, nil }},
		{"dial.block[0]", "not allowed anyway", func(c *Config) { c.Dial.Block = []string{"+49"} }},
		{"guard.phones", "any network", func(c *Config) { c.Guard.Phones = nil }},
		{"guard.trusted[0]", "nobody is ever banned", func(c *Config) { c.Guard.Trusted = []netip.Prefix{netip.MustParsePrefix("::/0")} }},
	} {
		c := office()
		tc.doubtful(&c)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v, want a warning only", tc.key, err)
		}
		if got := c.Warnings(); len(got) != 1 || got[0].Key != tc.key || !strings.Contains(got[0].Text, tc.text) {
			t.Errorf("want %s: …%s…, got %v", tc.key, tc.text, got)
		}
	}
}

// TestConfigSurvivesZero: it reports, it does not panic.
func TestConfigSurvivesZero(t *testing.T) {
	var c Config
	if got := mistakes(c.Validate()); !slices.ContainsFunc(got, func(m Mistake) bool { return m.Key == "sip.listen" }) {
		t.Errorf("%v", got)
	}
	c = Config{Trunks: make([]TrunkConfig, 2), Numbers: make([]NumberConfig, 1), Queues: make([]QueueConfig, 2), Hours: make([]desk.HoursConfig, 1), Extensions: make([]ExtensionConfig, 1)}
	if c.Validate() == nil {
		t.Error("a configuration of empty elements is taken")
	}
}

// FuzzSource: what is read is written and read again as the same, and contains
// its own address.
func FuzzSource(f *testing.F) {
	for _, seed := range []string{"198.51.100.0/24", "127.0.0.2:5080", "[2001:db8::1]:5060", "2001:db8::/48", "::ffff:192.0.2.1", "192.0.2.1:0", "fe80::1%eth0", "0.0.0.0/0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again Source
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Fatalf("%q is read as %v, then as %v (%v)", text, s, again, err)
		}
		if a := s.Prefix.Addr(); a.Is4() && !s.Contains(netip.AddrPortFrom(a, max(s.Port, 1))) {
			t.Fatalf("%v does not contain its own address", s)
		}
	})
}
