package pbx_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
)

func (r *rig) watch(phone, of string, expires time.Duration) *pbxtest.Subscription {
	r.t.Helper()
	s, res, err := r.phones[phone].Subscribe(r.t.Context(), of, expires)
	r.must(err)
	if res.Status != 200 {
		r.t.Fatalf("SUBSCRIBE answered %s", res)
	}
	time.Sleep(100 * time.Millisecond)
	return s
}

func shown(t *testing.T, s *pbxtest.Subscription, want ...string) {
	t.Helper()
	// One state may be told twice: when the subscription is renewed or ends.
	if got := slices.Compact(s.States()); !slices.Equal(got, want) {
		t.Errorf("the lamp showed %q, want %q", got, want)
	}
}

// TestLamp: idle, early, confirmed, idle again, for calls that come and calls
// that are placed, each NOTIFY whole and counted (RFC 4235 §4.1, RFC 6665).
func TestLamp(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		lamp := r.watch("102", "101", time.Hour)
		shown(t, lamp, "idle")
		caller, agent := r.talk()
		time.Sleep(time.Second)
		shown(t, lamp, "idle", "early", "confirmed")
		consultation := r.consult(agent, "102")
		r.must(consultation.WaitAnswered(10 * time.Second))
		time.Sleep(time.Second)
		consultation.Hangup()
		time.Sleep(time.Second) // two changes at one instant may be told as one
		caller.Hangup()
		r.records()
		time.Sleep(time.Second)
		shown(t, lamp, "idle", "early", "confirmed", "confirmed,early", "confirmed,confirmed", "confirmed", "idle")
	})
}

// TestLampKeyPicksUp: what the lamp tells is enough to take the call over.
func TestLampKeyPicksUp(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.RingForEver())
		r.watch("102", "101", time.Hour)
		caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111"})
		r.must(err)
		m, err := r.phones["102"].WaitMessage(time.Minute, func(m *pbxtest.Message) bool {
			return m.Method == "NOTIFY" && strings.Contains(string(m.Body), "remote-tag") && strings.Contains(string(m.Body), "early")
		})
		r.must(err)
		attr := func(name string) string {
			_, rest, _ := strings.Cut(string(m.Body), " "+name+`="`)
			v, _, _ := strings.Cut(rest, `"`)
			return v
		}
		taker, err := r.phones["102"].Call(pbxtest.CallOptions{To: "101", Fields: []pbxtest.Field{
			{Name: "Replaces", Value: attr("call-id") + ";to-tag=" + attr("local-tag") + ";from-tag=" + attr("remote-tag") + ";early-only"}}})
		r.must(err)
		r.must(taker.WaitAnswered(time.Second))
		caller.Hangup()
		r.only()
	})
}

// TestLampSubscription: renewed, ended, run out, forgotten by the phone, ended
// by the switch.
func TestLampSubscription(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		renewed, left, forgotten, runs := r.watch("102", "101", time.Minute), r.watch("102", "101", time.Hour), r.watch("102", "101", time.Hour), r.watch("102", "101", time.Minute)
		time.Sleep(40 * time.Second)
		for s, d := range map[*pbxtest.Subscription]time.Duration{renewed: time.Hour, left: 0} {
			res, err := s.Renew(t.Context(), d)
			r.must(err)
			if res.Status != 200 {
				t.Errorf("renewal answered %s", res)
			}
		}
		forgotten.Forget()
		time.Sleep(40 * time.Second)
		if renewed.Over() != "" || left.Over() != "timeout" || runs.Over() != "timeout" {
			t.Errorf("renewed %q, left %q, run out %q", renewed.Over(), left.Over(), runs.Over())
		}
		caller, _ := r.talk()
		time.Sleep(time.Second)
		shown(t, renewed, "idle", "early", "confirmed")
		for _, s := range []*pbxtest.Subscription{left, forgotten, runs} {
			shown(t, s, "idle")
			if res, err := s.Renew(t.Context(), time.Hour); err != nil || res.Status != 481 {
				t.Errorf("renewal of what is over answered %v, %v", res, err)
			}
		}
		caller.Hangup()
		r.records()
		if once := r.watch("102", "101", 0); once.Over() != "timeout" {
			t.Errorf("a look without subscription is over by %q", once.Over())
		}
		r.stop()
		if renewed.Over() != "deactivated" {
			t.Errorf("the switch stopped and told %q", renewed.Over())
		}
		r.stop = func() {}
	})
}

// TestLampRefused: what cannot be watched, and by whom.
func TestLampRefused(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		try := func(p *pbxtest.Peer, of string, d time.Duration, want int, fields ...pbxtest.Field) {
			t.Helper()
			_, res, err := p.Subscribe(t.Context(), of, d, fields...)
			r.must(err)
			if res.Status != want {
				t.Errorf("SUBSCRIBE to %s answered %s, want %d", of, res, want)
			}
			if want == 489 && res.Get("Allow-Events") == "" {
				t.Error("489 without Allow-Events")
			}
		}
		phone := r.phones["102"].Peer
		try(r.carrier.Peer, "101", time.Hour, 403)
		try(phone, "777", time.Hour, 404)
		try(phone, "101", 10*time.Second, 423)
		try(phone, "101", time.Hour, 489, pbxtest.Field{Name: "Event", Value: "message-summary"})
		for range 100 {
			try(phone, "101", time.Hour, 200)
		}
		try(phone, "101", time.Hour, 503)
		r.must(r.phones["102"].Unregister(t.Context()))
		try(phone, "101", time.Hour, 403)
	})
}
