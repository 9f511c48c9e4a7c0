package pbx

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"centralka/desk"
	"centralka/ordinance"
)

// Shortest secret that is not warned about: phone passwords are guessed by
// machines, and a guessed one calls at the city's expense.
const shortSecret = 12

// portsPerCall is two legs with RTP and RTCP.
const portsPerCall = 4

// checker compares the sections of a Config with each other. bad and warn take
// the key as the file names it, counting elements from 0.
type checker struct {
	*Config
	bad, warn func(key, format string, args ...any)
}

func (c *Config) validate(bad, warn func(key, format string, args ...any)) {
	k := checker{c, bad, warn}
	k.sip()
	k.rtp()
	k.trunks()
	k.numbers()
	k.announcement()
	k.queues()
	k.overflows()
	k.hours()
	k.extensions()
	k.dial()
	k.guard()
}

// at writes the key of an element: trunk[0].from.
func at(section string, i int, key string) string {
	s := section + "[" + strconv.Itoa(i) + "]"
	if key != "" {
		s += "." + key
	}
	return s
}

// positive refuses zero and less.
func (k checker) positive(key string, d time.Duration) {
	if d <= 0 {
		k.bad(key, "must be longer than 0, such as \"20s\"")
	}
}

// notNegative takes zero as a meaning of its own.
func (k checker) notNegative(key string, d time.Duration, zero string) {
	if d < 0 {
		k.bad(key, "%v is negative; \"0\" is %s", d, zero)
	}
}

func (k checker) atLeast(key string, n, least int, meaning string) {
	if n < least {
		k.bad(key, "%d is too small; the least is %d%s", n, least, meaning)
	}
}

// named checks the names of a list: one each, and fit for logs and targets.
func (k checker) named(section, what string, names []string) {
	seen := map[string]int{}
	for i, name := range names {
		key := at(section, i, what)
		if name == "" {
			k.bad(key, "is missing")
			continue
		}
		if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == ':' }) {
			k.bad(key, "%q: no spaces, colons or control characters in a name", name)
		}
		if first, twice := seen[name]; twice {
			k.bad(key, "%q is also that of %s", name, at(section, first, ""))
		} else {
			seen[name] = i
		}
	}
}

func names[T any](list []T, of func(T) string) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = of(e)
	}
	return out
}

func (k checker) sip() {
	s := k.SIP
	if len(s.Listen) == 0 {
		k.bad("sip.listen", "is missing: name at least one address, such as \"udp://192.0.2.10:5060\"")
	}
	tls := false
	for i, l := range s.Listen {
		key := at("sip.listen", i, "")
		tls = tls || l.Transport == "tls"
		if l.Addr.Port() == 0 {
			k.bad(key, "%v: the port is missing", l)
		}
		if slices.Contains(s.Listen[:i], l) {
			k.bad(key, "%v is there twice", l)
		}
		if p := l.Addr.Port(); l.Transport == "udp" && p >= k.RTP.Ports.First && p <= k.RTP.Ports.Last {
			k.bad(key, "port %d lies in rtp.ports (%v)", p, k.RTP.Ports)
		}
	}
	switch {
	case tls && (s.Certificate == "" || s.Key == ""):
		k.bad("sip.certificate", "a tls:// listener needs sip.certificate and sip.key")
	case (s.Certificate == "") != (s.Key == ""):
		k.bad("sip.certificate", "sip.certificate and sip.key are given together or not at all")
	case s.Certificate != "" && !tls:
		k.warn("sip.certificate", "has no effect without a tls:// listener")
	}
	if s.CA != "" && !tls {
		k.warn("sip.ca", "has no effect without a tls:// listener")
	}
	if s.Advertise != "" && !isHost(s.Advertise) {
		k.bad("sip.advertise", "%q is not an address or a host name (without port)", s.Advertise)
	}
	if s.Domain != "" && !isHost(s.Domain) {
		k.bad("sip.domain", "%q is not an address or a host name (without port)", s.Domain)
	}
	k.notNegative("sip.options_interval", s.OptionsInterval, "never")
	if s.OptionsInterval > 0 && s.OptionsInterval < 5*time.Second {
		k.warn("sip.options_interval", "%v: carriers take so many OPTIONS for an attack; 30s is usual", s.OptionsInterval)
	}
	if strings.ContainsFunc(s.UserAgent, unicode.IsControl) {
		k.bad("sip.user_agent", "contains a control character")
	}
}

// isHost reports whether s is an IP address or has the form of a host name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
				return false
			}
		}
	}
	return true
}

func (k checker) rtp() {
	r := k.RTP
	if r.Ports == (PortRange{}) {
		k.bad("rtp.ports", "is missing; the default is \"%v\"", DefaultConfig().RTP.Ports)
	}
	if r.Advertise != "" {
		if a, err := netip.ParseAddr(r.Advertise); err != nil || a.IsUnspecified() {
			k.bad("rtp.advertise", "%q is not an address; SDP takes no names here", r.Advertise)
		}
	} else if _, err := netip.ParseAddr(k.SIP.Advertise); err != nil && k.SIP.Advertise != "" {
		k.warn("rtp.advertise", "sip.advertise is a name, which many phones do not look up for voice; give the address here")
	}
	k.notNegative("rtp.timeout", r.Timeout, "never")
	k.atLeast("rtp.max_calls", r.MaxCalls, 0, ", which is no limit")
	k.notNegative("rtp.max_lateness", r.MaxLateness, "never")
	if r.MaxLateness > 0 && r.MaxLateness < 5*time.Millisecond {
		k.warn("rtp.max_lateness", "%v refuses calls on a machine that is merely busy; 40ms is usual", r.MaxLateness)
	}
	if r.Timeout > 0 && r.Timeout < 10*time.Second {
		k.warn("rtp.timeout", "%v ends calls of phones that send nothing in silence; 60s is usual", r.Timeout)
	}
	if r.DSCP < 0 || r.DSCP > 63 {
		k.bad("rtp.dscp", "%d is not a code point from 0 to 63", r.DSCP)
	}
	calls := 0
	for _, t := range k.Trunks {
		calls += t.MaxCalls
	}
	if room := (int(r.Ports.Last) - int(r.Ports.First) + 1) / portsPerCall; room < calls {
		k.warn("rtp.ports", "%v has ports for %d calls at a time, and the trunks take %d", r.Ports, room, calls)
	}
}

func (k checker) trunks() {
	k.named("trunk", "name", names(k.Trunks, func(t TrunkConfig) string { return t.Name }))
	if len(k.Trunks) == 0 {
		k.warn("trunk", "there is none: no call comes in or goes out")
	}
	for i, t := range k.Trunks {
		key := func(name string) string { return at("trunk", i, name) }
		if t.Server == "" {
			k.warn(key("server"), "is missing: no call goes out by this trunk")
		} else {
			k.server(key("server"), t)
		}
		k.sources(i, t)
		if secret := k.Secrets.Trunks[t.Name]; t.Register {
			if t.User == "" {
				k.bad(key("user"), "registration needs a user")
			}
			if secret == "" {
				k.bad(key("register"), "registration needs a password: a line %s = \"…\" under [trunk] of the secrets file", t.Name)
			}
			if t.Server == "" {
				k.bad(key("server"), "registration needs a server")
			}
		} else if secret != "" && t.User == "" {
			k.bad(key("user"), "the secrets file has a password for this trunk, but there is no user")
		}
		switch n, ok := ordinance.ParseNumber(t.CallerNumber); {
		case t.CallerNumber == "":
			k.warn(key("caller_number"), "is missing: outgoing calls present no number")
		case !ok || n.E164() != t.CallerNumber || t.CallerNumber[0] != '+':
			k.bad(key("caller_number"), "%q is not of the form +48914245000 (E.164)", t.CallerNumber)
		}
		k.atLeast(key("max_calls"), t.MaxCalls, 0, ", which is no limit")
		if k.srtp(key("srtp"), t.SRTP) && t.Server != "" && !strings.HasPrefix(t.Server, "tls://") {
			k.bad(key("srtp"), "%q needs TLS, which carries the keys: server = \"tls://…\"", t.SRTP)
		}
	}
	for name := range k.Secrets.Trunks {
		if !slices.ContainsFunc(k.Trunks, func(t TrunkConfig) bool { return t.Name == name }) {
			k.bad("secrets.trunk."+name, "there is no trunk of this name")
		}
	}
}

// srtp checks how voice is encrypted, and reports whether it may be: then there
// must be a way for the keys.
func (k checker) srtp(key, value string) bool {
	switch value {
	case "off", "":
		return false
	case "offer", "require":
	default:
		k.bad(key, "%q is not known: off, offer or require", value)
		return false
	}
	if !slices.ContainsFunc(k.SIP.Listen, func(l Listener) bool { return l.Transport == "tls" }) {
		k.bad(key, "%q needs TLS, which carries the keys: sip.listen has no tls:// listener", value)
		return false
	}
	return true
}

// server checks where a trunk's calls go, against our listeners: a transport
// without one of its own would leave the answers nowhere to go.
func (k checker) server(key string, t TrunkConfig) {
	s, ok := parseServer(t.Server)
	if !ok {
		k.bad(key, "%q is not a host or host:port, with nothing or udp://, tcp:// or tls:// in front", t.Server)
		return
	}
	addr, numeric := s.addr()
	transport := strings.ToLower(s.transport)
	if transport == "" && (numeric || s.port != 0) {
		transport = "udp"
	}
	switch {
	case transport == "" || len(k.SIP.Listen) == 0:
	case !slices.ContainsFunc(k.SIP.Listen, func(l Listener) bool { return l.Transport == transport }):
		k.bad(key, "%q goes by %s, for which sip.listen has no listener", t.Server, transport)
	case numeric && !slices.ContainsFunc(k.SIP.Listen, func(l Listener) bool {
		return l.Transport == transport && l.Addr.Addr().Is4() == addr.Is4()
	}):
		k.bad(key, "%q: sip.listen has no %s listener of that family of addresses", t.Server, transport)
	}
	switch {
	case transport == "tls" && numeric:
		k.warn(key, "%q: the certificate must name this address; most name a host", t.Server)
	case transport == "tls" && s.port == 5060, (transport == "tcp" || transport == "udp") && s.port == 5061:
		k.warn(key, "%q: port %d is hardly that of %s", t.Server, s.port, transport)
	}
	if s.transport == "TCP" || s.transport == "TLS" {
		for f, from := range t.From {
			if from.Port != 0 {
				k.warn(strings.TrimSuffix(key, "server")+"from["+strconv.Itoa(f)+"]", "%v: connections come from any port; without it all of the carrier's are this trunk's", from)
			}
		}
	}
}

// sources checks whose requests are a trunk's: nobody else's.
func (k checker) sources(i int, t TrunkConfig) {
	if len(t.From) == 0 {
		k.bad(at("trunk", i, "from"), "is missing: nobody's calls would be this trunk's; name the carrier's addresses")
	}
	for f, from := range t.From {
		key := at(at("trunk", i, "from"), f, "")
		if from.Prefix.Bits() == 0 {
			k.bad(key, "%v takes everybody for the carrier", from)
			continue
		}
		for j, other := range k.Trunks[:i] {
			for _, of := range other.From {
				if of.Prefix.Overlaps(from.Prefix) && (of.Port == from.Port || of.Port == 0 || from.Port == 0) {
					k.bad(key, "%v is also in %s (%v)", from, at("trunk", j, "from"), of)
				}
			}
		}
		for _, phones := range k.Guard.Phones {
			switch {
			case from.Port != 0 && !phones.IsSingleIP() || !from.Prefix.Overlaps(phones):
			case from.Prefix.Bits() <= phones.Bits():
				k.bad(key, "%v is also a network of phones (guard.phones %v): no phone could register from it", from, phones)
			default:
				k.warn(key, "%v lies in guard.phones %v: no phone can register from it", from, phones)
			}
		}
	}
}

func (k checker) numbers() {
	seen := map[ordinance.Number]int{}
	for i, n := range k.Numbers {
		num, ok := ordinance.ParseNumber(n.Match)
		if !ok {
			k.bad(at("number", i, "match"), "%q is not a telephone number", n.Match)
		} else if first, twice := seen[num]; twice {
			k.bad(at("number", i, "match"), "is the same number as that of %s", at("number", first, ""))
		} else {
			seen[num] = i
		}
		k.priority(at("number", i, "priority"), n.Priority)
		if n.Target == "" {
			k.bad(at("number", i, "target"), "is missing: \"queue:NAME\" or \"extension:NUMBER\"")
		} else {
			k.target(at("number", i, "target"), n.Target)
		}
	}
	if len(k.Numbers) == 0 && len(k.Trunks) > 0 {
		k.warn("number", "there is none: every call from outside is answered 404")
	}
}

// target checks "queue:NAME" or "extension:NUMBER".
func (k checker) target(key, target string) {
	kind, name, ok := strings.Cut(target, ":")
	switch {
	case ok && kind == "queue":
		if k.queueNamed(name) < 0 {
			k.bad(key, "%q: there is no such queue", target)
		}
	case ok && kind == "extension":
		if _, ok := k.extension(name); !ok {
			k.bad(key, "%q: there is no such extension", target)
		}
	default:
		k.bad(key, "%q is not of the form \"queue:NAME\" or \"extension:NUMBER\"", target)
	}
}

func (k checker) queueNamed(name string) int {
	return slices.IndexFunc(k.Queues, func(q QueueConfig) bool { return q.Name == name })
}

func (k checker) extension(number string) (ExtensionConfig, bool) {
	i := slices.IndexFunc(k.Extensions, func(e ExtensionConfig) bool { return e.Number == number })
	if i < 0 {
		return ExtensionConfig{}, false
	}
	return k.Extensions[i], true
}

func (k checker) hours() {
	k.named("hours", "name", names(k.Hours, func(h desk.HoursConfig) string { return h.Name }))
	for i, h := range k.Hours {
		if _, err := desk.ParseHours(h); err != nil {
			k.bad(at("hours", i, ""), "%v", err)
		} else if len(h.Week) == 0 {
			k.warn(at("hours", i, "week"), "is empty: it never opens")
		}
		if h.Name != "" && !slices.ContainsFunc(k.Queues, func(q QueueConfig) bool { return q.Hours == h.Name }) {
			k.warn(at("hours", i, "name"), "%q: no queue uses these hours", h.Name)
		}
	}
}
