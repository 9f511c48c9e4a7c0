package pbx

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"centralka/desk"
)

func (k checker) announcement() {
	a := k.Announcement
	digest, err := hex.DecodeString(a.SHA256)
	switch {
	case a.File != "" && a.SHA256 == "":
		k.bad("announcement.sha256", "is missing: announcement.file needs its hash (sha256sum), so that another recording is noticed")
	case a.File == "" && a.SHA256 != "":
		k.bad("announcement.sha256", "has no announcement.file that it could be of")
	case a.SHA256 != "" && (err != nil || len(digest) != 32):
		k.bad("announcement.sha256", "%q is not a SHA-256 of 64 hexadecimal digits", a.SHA256)
	}
	if a.EarlyMedia {
		k.bad("announcement.early_media", "true is not available in this version: the announcement plays once the call is answered")
	}
}

func (k checker) queues() {
	k.named("queue", "name", names(k.Queues, func(q QueueConfig) string { return q.Name }))
	for i, q := range k.Queues {
		key := func(name string) string { return at("queue", i, name) }
		if q.Number != "" {
			k.inside(key("number"), q.Number)
			if _, ok := k.extension(q.Number); ok {
				k.bad(key("number"), "%q is an extension", q.Number)
			}
			if first := slices.IndexFunc(k.Queues, func(o QueueConfig) bool { return o.Number == q.Number }); first < i {
				k.bad(key("number"), "%q is also that of %s", q.Number, at("queue", first, ""))
			}
		}
		switch q.Strategy {
		case "longest-idle", "round-robin", "ring-all":
		default:
			k.bad(key("strategy"), "%q is not known: longest-idle, round-robin or ring-all", q.Strategy)
		}
		if len(q.Members) == 0 {
			k.warn(key("members"), "is empty: callers wait for nobody")
		}
		for m, member := range q.Members {
			e, ok := k.extension(member)
			mkey := at(key("members"), m, "")
			switch {
			case !ok:
				k.bad(mkey, "%q: there is no such extension", member)
			case !e.Agent:
				k.bad(mkey, "%q takes no queue calls: its extension has agent = false", member)
			case slices.Contains(q.Members[:m], member):
				k.bad(mkey, "%q is there twice", member)
			}
		}
		k.positive(key("ring_timeout"), q.RingTimeout)
		if q.RingTimeout > 0 && q.RingTimeout < 5*time.Second {
			k.warn(key("ring_timeout"), "%v: hardly anybody picks up so fast", q.RingTimeout)
		}
		k.notNegative(key("wrap_up"), q.WrapUp, "none")
		k.notNegative(key("max_wait"), q.MaxWait, "no limit")
		k.priority(key("priority"), q.Priority)
		k.atLeast(key("auto_away_after"), q.AutoAwayAfter, 0, ", which is never")
		k.atLeast(key("max_length"), q.MaxLength, 0, ", which is no limit")
		k.spoken(key("announce_position"), q.AnnouncePosition)
		k.spoken(key("periodic"), q.Periodic)
		if q.PeriodicFile != "" && q.Periodic == 0 {
			k.warn(key("periodic_file"), "is never played: periodic is \"0\"")
		}
		if q.MaxWait > 0 && q.MaxWait < q.RingTimeout {
			k.warn(key("max_wait"), "%v is over before the first phone has rung for its %v", q.MaxWait, q.RingTimeout)
		}
		if q.Overflow != "" {
			k.target(key("overflow"), q.Overflow)
			if q.MaxWait == 0 && q.MaxLength == 0 {
				k.warn(key("overflow"), "is never used: max_wait and max_length are without limit")
			}
		}
		if q.Hours != "" && !slices.ContainsFunc(k.Hours, func(h desk.HoursConfig) bool { return h.Name == q.Hours }) {
			k.bad(key("hours"), "%q: there are no such [[hours]]", q.Hours)
		}
	}
}

// spoken keeps messages to who waits from following one another without a pause.
func (k checker) spoken(key string, every time.Duration) {
	if every != 0 && every < noticePause {
		k.bad(key, "%v is too often: %v at least, or \"0\", which is never", every, noticePause)
	}
}

// priority keeps priorities where sums of two mean something.
func (k checker) priority(key string, p int) {
	if p < -maxPriority || p > maxPriority {
		k.bad(key, "%d is not from -%d to %d", p, maxPriority, maxPriority)
	}
}

const maxPriority = 100

// overflows refuses queues that hand their callers round in a circle; each
// circle is reported at its first queue.
func (k checker) overflows() {
	reported := map[int]bool{}
	for i := range k.Queues {
		path := []int{i}
		for q := k.overflowOf(i); q >= 0; q = k.overflowOf(q) {
			if at := slices.Index(path, q); at >= 0 {
				circle := path[at:]
				if first := slices.Min(circle); !reported[first] {
					reported[first] = true
					k.circle(circle)
				}
				break
			}
			path = append(path, q)
		}
	}
}

func (k checker) circle(circle []int) {
	var way []string
	for _, q := range append(circle, circle[0]) {
		way = append(way, k.Queues[q].Name)
	}
	k.bad(at("queue", slices.Min(circle), "overflow"), "goes round in a circle: %s", strings.Join(way, " → "))
}

// overflowOf returns the queue that i overflows to, -1 for none.
func (k checker) overflowOf(i int) int {
	name, ok := strings.CutPrefix(k.Queues[i].Overflow, "queue:")
	if !ok {
		return -1
	}
	return k.queueNamed(name)
}

// inside checks a number that is dialled within the office.
func (k checker) inside(key, number string) {
	prefix := k.Dial.OutsidePrefix
	habitual, zero := strings.CutPrefix(number, "0")
	switch {
	case !isDigits(number) || len(number) < 2 || len(number) > 6:
		k.bad(key, "%q is not a number of two to six digits", number)
	case slices.Contains(k.Dial.Emergency, number):
		k.bad(key, "%q is an emergency number (dial.emergency)", number)
	case prefix != "" && strings.HasPrefix(number, prefix):
		k.bad(key, "%q begins with dial.outside_prefix %q, so that it could not be dialled", number, prefix)
	case zero && slices.Contains(k.Dial.Emergency, habitual):
		k.bad(key, "%q is an emergency number (dial.emergency) with the habitual 0 in front", number)
	}
}

func (k checker) extensions() {
	k.named("extension", "number", names(k.Extensions, func(e ExtensionConfig) string { return e.Number }))
	for i, e := range k.Extensions {
		key := func(name string) string { return at("extension", i, name) }
		if e.Number != "" {
			k.inside(key("number"), e.Number)
		}
		switch e.Ready {
		case "on-register", "on-login":
		default:
			k.bad(key("ready"), "%q is not known: on-register or on-login", e.Ready)
		}
		k.srtp(key("srtp"), e.SRTP)
		if e.Digest != "any" && e.Digest != "md5" {
			k.bad(key("digest"), "%q is not known: any or md5", e.Digest)
		}
		k.atLeast(key("max_calls"), e.MaxCalls, 1, "")
		k.atLeast(key("contacts"), e.Contacts, 1, "")
		if e.Number == "" {
			continue
		}
		switch secret := k.Secrets.Extensions[e.Number]; {
		case secret == "":
			k.bad(key("number"), "%q has no password: a line %s = \"…\" under [extension] of the secrets file", e.Number, e.Number)
		case secret == e.Number:
			k.bad(key("number"), "the password of %q is its number", e.Number)
		case len(secret) < shortSecret:
			k.warn(key("number"), "the password of %q is shorter than %d characters", e.Number, shortSecret)
		}
	}
	for number := range k.Secrets.Extensions {
		if _, ok := k.extension(number); !ok {
			k.bad("secrets.extension."+number, "there is no extension of this number")
		}
	}
}

func (k checker) dial() {
	d := k.Dial
	if d.OutsidePrefix != "" && !isDigits(d.OutsidePrefix) {
		k.bad("dial.outside_prefix", "%q: digits only", d.OutsidePrefix)
	}
	for i, n := range d.Emergency {
		if !isDigits(n) || len(n) > 6 {
			k.bad(at("dial.emergency", i, ""), "%q is not a short number of up to six digits", n)
		} else if slices.Contains(d.Emergency[:i], n) {
			k.bad(at("dial.emergency", i, ""), "%q is there twice", n)
		}
	}
	if !slices.Contains(d.Emergency, "112") {
		k.warn("dial.emergency", "112 is not in it: calls to it would be subject to the rules")
	}
	beginning := func(key string, list []string) {
		for i, b := range list {
			if digits, ok := strings.CutPrefix(b, "+"); !ok || !isDigits(digits) || digits[0] == '0' {
				k.bad(at(key, i, ""), "%q is not the beginning of an E.164 number, such as \"+48\"", b)
			}
		}
	}
	beginning("dial.allow", d.Allow)
	beginning("dial.block", d.Block)
	if len(d.Allow) == 0 {
		k.warn("dial.allow", "is empty: phones reach nobody outside but emergency numbers")
	}
	for i, b := range d.Block {
		if !slices.ContainsFunc(d.Allow, func(a string) bool { return strings.HasPrefix(b, a) || strings.HasPrefix(a, b) }) {
			k.warn(at("dial.block", i, ""), "%q is not allowed anyway (dial.allow)", b)
		}
	}
	k.atLeast("dial.max_outgoing_per_extension", d.MaxOutgoingPerExtension, 0, ", which is none")
}

func (k checker) guard() {
	for i, t := range k.Guard.Trusted {
		if t.Bits() == 0 {
			k.warn(at("guard.trusted", i, ""), "%v: nobody is ever banned", t)
		}
	}
	local := !slices.ContainsFunc(k.SIP.Listen, func(l Listener) bool { return !l.Addr.Addr().IsLoopback() })
	if len(k.Guard.Phones) == 0 && len(k.Extensions) > 0 && !local {
		k.warn("guard.phones", "is empty: phones may register from any network")
	}
}
