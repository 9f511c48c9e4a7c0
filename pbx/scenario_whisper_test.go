package pbx_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"centralka/desk"
	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// whisperWords is what agents hear first in whisperCity, for 1.5 s.
func whisperWords() []int16 { return pbxtest.Chirp(3*pbxtest.Rate/2, 500, 900) }

func whisperCity(t *testing.T, phones ...string) pbx.Config {
	t.Helper()
	cfg := briefCity(t, phones...)
	cfg.Queues[0].Whisper, _ = writeWAV(t, whisperWords())
	return cfg
}

// ringbackHeard reports whether somebody hears a Polish ringback tone: 425 Hz, one
// second of every five.
func ringbackHeard(pcm []int16) bool {
	spans := pbxtest.Spans(pcm, 425)
	for i, s := range spans {
		if d := s.To - s.From; d > 1100*time.Millisecond || i > 0 && (s.From-spans[i-1].To-4*time.Second).Abs() > 100*time.Millisecond {
			return false
		}
	}
	return len(spans) > 0
}

// TestWhisper: the agent hears which queue it is before the caller, who hears
// music meanwhile and nothing of it; the recording begins at the bridge (S1.3-l).
func TestWhisper(t *testing.T) {
	t.Parallel()
	scenario(t, whisperCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		answered := agent.At(pbxtest.Answered)
		time.Sleep(4 * time.Second)
		heard := agent.Heard()
		m := pbxtest.Find(heard.PCM, whisperWords())
		if !m.Whole() {
			t.Fatalf("the agent heard %+v of the whisper", m)
		}
		bridged := heard.Start.Add(m.To)
		hears(t, "agent", heard.Since(bridged.Add(100*time.Millisecond)), callerHz)
		if pbxtest.HasTone(heard.Between(answered, bridged.Add(-50*time.Millisecond)), callerHz) {
			t.Error("the agent hears the caller in the whisper")
		}
		if !musicHeard(caller.Heard().Between(answered, bridged.Add(-100*time.Millisecond))) {
			t.Error("the caller hears no music in the whisper")
		}
		hears(t, "caller", caller.Heard().Since(bridged.Add(100*time.Millisecond)), phoneHz)
		caller.Hangup()
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		segments(t, rec, "101")
		if d := rec.Recording.Began.Sub(bridged); d < -40*time.Millisecond || d > 100*time.Millisecond {
			t.Errorf("recorded from %v after the bridge", d)
		}
		citizen, office := r.lanes(rec)
		sameLength(t, rec, citizen)
		hears(t, "citizen's lane", citizen, callerHz)
		hears(t, "office lane", office, phoneHz)
	})
}

// TestHangupInWhisper: whoever hangs up in it, caller and agent both end well: the
// next agent has a caller whose agent left, with the same whisper; an agent whose
// caller left is free.
func TestHangupInWhisper(t *testing.T) {
	t.Parallel()
	scenario(t, whisperCity(t, "101", "102"), func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		time.Sleep(500 * time.Millisecond)
		agent.Hangup()
		next := r.answeredBy("102")
		time.Sleep(3 * time.Second)
		if !pbxtest.Find(next.Heard().PCM, whisperWords()).Whole() {
			t.Error("the next agent hears no whisper")
		}
		hears(t, "next agent", next.Heard().Since(time.Now().Add(-time.Second)), callerHz)
		if a := r.agent("101"); a.State != desk.Ready {
			t.Errorf("the agent who left is %+v", a)
		}
		next.Hangup()
		r.must(caller.WaitEnded(time.Second))

		gone := r.call()
		agent = r.answeredBy("101")
		time.Sleep(500 * time.Millisecond)
		gone.Hangup()
		r.must(agent.WaitEnded(time.Second))
		for _, rec := range r.records() {
			switch rec.Cause {
			case store.CauseAbandoned:
				ended(t, rec, store.CauseAbandoned, store.OutcomeNone)
				segments(t, rec)
			default:
				ended(t, rec, store.CauseHangupCalled, store.OutcomeOK)
				segments(t, rec, "102")
			}
		}
	})
}

// TestWhisperIsLost: an agent's phone that dies in it, or cannot hear it, costs the
// caller nothing; nor does a lost ACK, or a BYE that comes twice.
func TestWhisperIsLost(t *testing.T) {
	t.Parallel()
	cfg := whisperCity(t, "101", "102")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		acks := 0
		r.net.Drop(func(src, dst netip.AddrPort, b []byte) bool {
			if dst == phoneAddr(0) && strings.HasPrefix(string(b), "ACK ") {
				acks++
				return acks == 1
			}
			return false
		})
		caller, agent := r.talk()
		time.Sleep(100 * time.Millisecond)
		r.must(agent.Hold(t.Context())) // breaks the whisper: the call is put through, held
		time.Sleep(time.Second)
		if !musicHeard(caller.Heard().Since(time.Now().Add(-700 * time.Millisecond))) {
			t.Error("the held caller hears no music")
		}
		r.must(agent.Resume(t.Context()))
		time.Sleep(time.Second)
		hears(t, "caller", caller.Heard().Since(time.Now().Add(-700*time.Millisecond)), phoneHz)
		caller.Hangup()
		if rec := r.only(); rec.Recording.Outcome != store.OutcomeOK {
			t.Errorf("recording %+v", rec.Recording)
		}
		if acks < 2 {
			t.Errorf("%d ACKs", acks)
		}
	})
}

// TestPickupHearsWhisper: who picks a queue's call up hears whose it is as well.
func TestPickupHearsWhisper(t *testing.T) {
	t.Parallel()
	scenario(t, whisperCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.behave("101", pbxtest.RingForEver())
		caller := r.call()
		_, err := r.phones["101"].WaitCall(time.Minute)
		r.must(err)
		time.Sleep(time.Second)
		taker, err := r.phones["102"].Dial("*8")
		r.must(err)
		r.must(taker.WaitAnswered(time.Second))
		time.Sleep(3 * time.Second)
		if !pbxtest.Find(taker.Heard().PCM, whisperWords()).Whole() {
			t.Error("no whisper")
		}
		hears(t, "taker", taker.Heard().Since(time.Now().Add(-time.Second)), callerHz)
		caller.Hangup()
		segments(t, r.only(), "102")
	})
}

// TestWhisperFile: a file that is no whisper is refused at a reload, and a start
// goes on without it.
func TestWhisperFile(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101")
	long, _ := writeWAV(t, pbxtest.Chirp(11*pbxtest.Rate, 500, 900))
	cfg.Queues[0].Whisper = long
	scenario(t, cfg, func(t *testing.T, r *rig) {
		if _, err := r.sw.Reload(cfg); err == nil || !strings.Contains(err.Error(), "longer than 10s") {
			t.Errorf("reload said %v", err)
		}
		if !strings.Contains(r.log.String(), "agents are not told the queue") {
			t.Error("the log does not say that there is no whisper")
		}
		caller, _ := r.talk()
		time.Sleep(time.Second)
		caller.Hangup()
		ended(t, r.only(), store.CauseHangupCaller, store.OutcomeOK)
	})
}

// TestAgentSeesQueueAndNumber: the display says which queue it is and who calls;
// who withholds the number withholds it here too. A name cannot break the header.
func TestAgentSeesQueueAndNumber(t *testing.T) {
	t.Parallel()
	cfg := briefCity(t, "101", "102")
	cfg.Extensions[1].Name = `Ola "Ala" \ Nowak`
	scenario(t, cfg, func(t *testing.T, r *rig) {
		caller, agent := r.talk()
		if from := agent.Invite().Get("From"); !strings.HasPrefix(from, `"cim +48600100200" <sip:+48600100200@`) {
			t.Errorf("From %q", from)
		}
		caller.Hangup()
		hidden, err := r.carrier.Call(pbxtest.CallOptions{Anonymous: true, PAI: "+48600100200", Privacy: "id", To: "+48914245000"})
		r.must(err)
		agent = r.answeredBy("102")
		if from := agent.Invite().Get("From"); !strings.HasPrefix(from, `"cim Numer zastrzeżony" <sip:anonymous@`) || strings.Contains(string(agent.Invite().Bytes()), "600100200") {
			t.Errorf("withheld: %q", from)
		}
		hidden.Hangup()
		_, err = r.phones["102"].Dial("101")
		r.must(err)
		inside := r.answeredBy("101")
		if from := inside.Invite().Get("From"); !strings.HasPrefix(from, `"Ola \"Ala\" \\ Nowak" <sip:102@`) {
			t.Errorf("From %q", from)
		}
		inside.Hangup()
		r.records()
	})
}

// TestRingback: who has no tone of its own hears one from us: the phone whose
// trunk says 183 without SDP, the caller of an extension, the party that is passed
// on.
func TestRingback(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		r.carrier.SetOnRequest(func(m *pbxtest.Message) bool {
			if m.Method == "INVITE" {
				r.must(r.carrier.Respond(m, 183))
			}
			return false
		})
		b := pbxtest.AnswerAfter(12 * time.Second)
		b.Ring, b.Say = 8*time.Second, pbxtest.Tone(1000)
		r.carrier.SetBehaviour(pbxtest.Always(b))
		out, err := r.phones["101"].Dial("0501502503")
		r.must(err)
		r.must(out.WaitAnswered(20 * time.Second))
		answered := time.Now()
		if !ringbackHeard(out.Heard().Between(answered.Add(-11*time.Second), answered)) {
			t.Error("the phone hears no ringback")
		}
		time.Sleep(time.Second)
		hears(t, "phone", out.Heard().Since(answered.Add(100*time.Millisecond)), 1000, 425)
		out.Hangup()
		r.carrier.SetOnRequest(nil)

		time.Sleep(time.Second)
		b = pbxtest.AnswerAfter(7 * time.Second)
		r.behave("101", b)
		r.behave("102", b)
		caller, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245111", Say: pbxtest.Tone(1000)})
		r.must(err)
		agent := r.answeredBy("101")
		answered = time.Now()
		if !ringbackHeard(caller.Heard().Between(answered.Add(-6500*time.Millisecond), answered)) {
			t.Error("the caller of an extension hears no ringback")
		}
		time.Sleep(time.Second)
		hears(t, "caller", caller.Heard().Since(answered.Add(100*time.Millisecond)), phoneHz, 425)
		r.refer(agent, "102", 202)
		target := r.answeredBy("102")
		answered = time.Now()
		if !ringbackHeard(caller.Heard().Between(answered.Add(-6500*time.Millisecond), answered)) {
			t.Error("who is passed on hears no ringback")
		}
		target.Hangup()
		r.must(caller.WaitEnded(time.Second))
		r.records()
	})
}
