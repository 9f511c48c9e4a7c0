package pbx_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

const (
	gcm = "AEAD_AES_128_GCM"
	cm  = "AES_CM_128_HMAC_SHA1_80"
)

// srtp sets what is done about SRTP on the trunk and by the phones, as if all
// signalling were by TLS.
func srtp(trunk, phones string) func(r *rig) {
	return func(r *rig) {
		r.prepare = func(sw *pbx.Switch) { sw.PretendTLS(trunk, phones) }
	}
}

// secureVoice is a voice that says a tone over SRTP.
func secureVoice(hz int, suites ...string) *pbxtest.Voice {
	return &pbxtest.Voice{Say: pbxtest.Tone(hz), SRTP: suites}
}

// secureCall places a call from the trunk that 101 answers.
func (r *rig) secureCall(caller, phone *pbxtest.Voice) (c, agent *pbxtest.Call) {
	r.t.Helper()
	r.behave("101", pbxtest.Behaviour{Status: 200, After: time.Second, Voice: phone})
	c, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Voice: caller})
	r.must(err)
	return c, r.answeredBy("101")
}

// noKeys asserts that no key of the messages is in the log.
func (r *rig) noKeys(peers ...*pbxtest.Peer) {
	r.t.Helper()
	seen := 0
	for _, p := range peers {
		for _, e := range p.Messages() {
			s, err := pbxtest.ParseSDP(e.Message.Body)
			if err != nil {
				continue
			}
			for _, c := range s.Crypto {
				seen++
				if strings.Contains(r.log.String(), base64.StdEncoding.EncodeToString(c.Key)[:12]) {
					r.t.Error("a key is in the log")
				}
			}
		}
	}
	if seen == 0 {
		r.t.Error("no key was said")
	}
}

// TestEncryptedCalls: either leg, or both, in different suites and laws: prompts,
// music and conversation are heard, the recording is in the clear, the status says
// who speaks how, and no key is logged.
func TestEncryptedCalls(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		trunk, phones  string
		caller, phone  []string
		carrier, agent string // what is agreed
	}{
		{"plain trunk, secure phone", "off", "require", nil, []string{cm}, "", cm},
		{"secure trunk, plain phone", "require", "off", []string{gcm, cm}, nil, gcm, ""},
		{"both, in two suites", "offer", "offer", []string{"AES_CM_128_HMAC_SHA1_32", gcm}, []string{cm, gcm}, "AES_CM_128_HMAC_SHA1_32", gcm},
		{"a phone that refuses SRTP", "require", "offer", []string{cm}, nil, cm, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
				voice := secureVoice(callerHz, c.caller...)
				voice.Codecs = []pbxtest.Codec{pbxtest.PCMU}
				caller, agent := r.secureCall(voice, secureVoice(phoneHz, c.phone...))
				talking := time.Now()
				time.Sleep(3 * time.Second)
				if caller.Suite() != c.carrier || agent.Suite() != c.agent {
					t.Errorf("agreed on %q and %q", caller.Suite(), agent.Suite())
				}
				want := []pbx.VoiceStatus{{Party: "operator", SRTP: c.carrier}, {Party: "101", SRTP: c.agent}}
				if st := r.sw.Status(); len(st.Calls) != 1 || !slices.Equal(st.Calls[0].Voices, want) {
					t.Errorf("status %+v", st.Calls)
				}
				caller.Hangup()
				r.must(agent.WaitEnded(time.Second))
				if m := pbxtest.Find(caller.Heard().PCM, briefWords()); !m.Whole() {
					t.Errorf("the announcement: %+v", m)
				}
				if !musicHeard(caller.Heard().Between(talking.Add(-800*time.Millisecond), talking.Add(-100*time.Millisecond))) {
					t.Error("the caller hears no music")
				}
				hears(t, "caller", caller.Heard().Since(talking.Add(200*time.Millisecond)), phoneHz, callerHz)
				hears(t, "agent", agent.Heard().PCM, callerHz, phoneHz)
				rec := r.only()
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				left, right := r.lanes(rec)
				sameLength(t, rec, left)
				hears(t, "left lane", left, callerHz, phoneHz)
				hears(t, "right lane", right, phoneHz, callerHz)
				if e := r.sw.Status().Engine; e.Forged+e.Replayed+e.Malformed != 0 {
					t.Errorf("engine %+v", e)
				}
				r.noKeys(r.carrier.Peer, r.phones["101"].Peer)
				if c.agent == "" && c.phones == "offer" {
					r.says("101 > switch 488", "switch > 101 ACK", "switch > 101 INVITE", "101 > switch 200 OK (INVITE)")
				}
			}, srtp(c.trunk, c.phones))
		})
	}
}

// TestEncryptedOutgoing: a phone calls out over a trunk that requires SRTP.
func TestEncryptedOutgoing(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.Behaviour{Status: 200, After: time.Second, Voice: secureVoice(callerHz, cm)}))
		out, err := r.phones["101"].Call(pbxtest.CallOptions{To: "0600100200", Voice: secureVoice(phoneHz, gcm)})
		r.must(err)
		far, err := r.carrier.WaitCall(time.Second)
		r.must(err)
		r.must(out.WaitAnswered(3 * time.Second))
		time.Sleep(3 * time.Second)
		if out.Suite() != gcm || far.Suite() != cm {
			t.Errorf("agreed on %q and %q", out.Suite(), far.Suite())
		}
		out.Hangup()
		r.must(far.WaitEnded(time.Second))
		hears(t, "phone", out.Heard().Since(out.At(pbxtest.Answered).Add(200*time.Millisecond)), callerHz, phoneHz)
		hears(t, "far end", far.Heard().PCM, phoneHz, callerHz)
		left, right := r.lanes(r.only())
		hears(t, "left lane", left, callerHz, phoneHz)
		hears(t, "right lane", right, phoneHz, callerHz)
	}, srtp("require", "offer"))
}

// TestEncryptedCallGoesOn: hold and resume with the same key while the phone's
// numbers pass 2^16, a new key, and a transfer to a phone without SRTP.
func TestEncryptedCallGoesOn(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101", "102"), func(t *testing.T, r *rig) {
		phone := secureVoice(phoneHz, gcm)
		phone.Start = &pbxtest.StreamStart{SSRC: 7, Sequence: 65535 - 75, Timestamp: 1 << 30} // 1.5 s before the wrap
		r.behave("102", pbxtest.Behaviour{Status: 200, After: time.Second, Voice: secureVoice(phoneHz + 30)})
		caller, agent := r.secureCall(secureVoice(callerHz, cm), phone)
		stretch := func(what string, hz float64) {
			t.Helper()
			from := time.Now()
			time.Sleep(time.Second)
			hears(t, "caller "+what, caller.Heard().Between(from.Add(200*time.Millisecond), from.Add(time.Second)), hz, callerHz)
		}
		stretch("at first", phoneHz)
		r.must(agent.Hold(t.Context()))
		held := time.Now()
		time.Sleep(time.Second)
		if !musicHeard(caller.Heard().Between(held.Add(200*time.Millisecond), held.Add(time.Second))) {
			t.Error("the caller hears no music on hold")
		}
		r.must(agent.Resume(t.Context()))
		stretch("after hold and wrap", phoneHz)
		if e := r.sw.Status().Engine; e.Forged != 0 {
			t.Errorf("engine %+v", e)
		}
		agent.ChangeKey()
		r.must(agent.Resume(t.Context()))
		stretch("with the new key", phoneHz)
		hears(t, "agent", agent.Heard().Since(time.Now().Add(-900*time.Millisecond)), callerHz, phoneHz)
		if agent.Suite() != gcm {
			t.Errorf("agreed on %q", agent.Suite())
		}
		r.refer(agent, "102", 202)
		target := r.answeredBy("102")
		stretch("from the other phone", phoneHz+30)
		hears(t, "target", target.Heard().PCM, callerHz, phoneHz+30)
		if target.Suite() != "" || caller.Suite() != cm {
			t.Errorf("agreed on %q and %q", caller.Suite(), target.Suite())
		}
		caller.Hangup()
		r.must(target.WaitEnded(time.Second))
		rec := r.only()
		ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
		left, right := r.lanes(rec)
		sameLength(t, rec, left)
		hears(t, "right lane at its end", right[len(right)-pbxtest.Rate/2:], phoneHz+30, callerHz)
		hears(t, "left lane", left[:pbxtest.Rate/2], callerHz, phoneHz)
	}, srtp("offer", "offer"))
}

// TestForgedVoice: what was tampered with, or made with another key, is neither
// heard nor recorded, and counted.
func TestForgedVoice(t *testing.T) {
	t.Parallel()
	scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
		caller, agent := r.secureCall(secureVoice(callerHz, gcm), secureVoice(phoneHz, cm))
		time.Sleep(time.Second)
		began := time.Now()
		agent.Tamper(func(b []byte) []byte {
			b[20] ^= 1
			return b
		})
		time.Sleep(time.Second)
		if n := r.sw.Status().Engine.Forged; n < 45 || n > 55 {
			t.Errorf("%d packets forged", n)
		}
		agent.Tamper(nil)
		mended := time.Now()
		time.Sleep(time.Second)
		r.must(agent.SendWithWrongKey())
		wrong := time.Now()
		time.Sleep(time.Second)
		if n := r.sw.Status().Engine.Forged; n < 90 || n > 110 {
			t.Errorf("%d packets forged", n)
		}
		caller.Hangup()
		r.must(agent.WaitEnded(time.Second))
		margin := 100 * time.Millisecond
		for _, silent := range [][2]time.Time{{began, mended}, {wrong, wrong.Add(time.Second)}} {
			if l := pbxtest.Level(caller.Heard().Between(silent[0].Add(margin), silent[1].Add(-margin))); l > -60 {
				t.Errorf("the caller hears %.0f dBFS of forged voice", l)
			}
		}
		hears(t, "caller", caller.Heard().Between(mended.Add(margin), wrong.Add(-margin)), phoneHz, callerHz)
		hears(t, "agent", agent.Heard().PCM, callerHz, phoneHz)
		rec := r.only()
		left, right := r.lanes(rec)
		hears(t, "left lane", left, callerHz, phoneHz)
		at := func(x time.Time) int { return int(x.Sub(rec.Answered) * pbxtest.Rate / time.Second) }
		if l := pbxtest.Level(right[at(began.Add(margin)):at(mended.Add(-margin))]); l > -60 {
			t.Errorf("forged voice is recorded at %.0f dBFS", l)
		}
		hears(t, "right lane", right[at(mended.Add(margin)):at(wrong.Add(-margin))], phoneHz, callerHz)
	}, srtp("offer", "require"))
}

// TestNoDowngrade: what is required, or was encrypted, is not taken in the clear.
func TestNoDowngrade(t *testing.T) {
	t.Parallel()
	t.Run("required", func(t *testing.T) {
		scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
			call := r.call()
			r.must(call.WaitEnded(time.Second))
			res, err := r.carrier.WaitMessage(0, func(m *pbxtest.Message) bool { return m.Status >= 200 })
			r.must(err)
			if w := res.Get("Warning"); res.Status != 488 || !strings.HasPrefix(w, "302 centralka.test ") {
				t.Errorf("answered %s, Warning %q", res, w)
			}
			ended(t, r.only(), store.CauseNotAcceptable, store.OutcomeNone)
		}, srtp("require", "off"))
	})
	t.Run("required of a phone", func(t *testing.T) {
		scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
			out, err := r.phones["101"].Call(pbxtest.CallOptions{To: "101"})
			r.must(err)
			r.must(out.WaitEnded(time.Second))
			if out.End().Status != 488 {
				t.Errorf("ended by %+v", out.End())
			}
		}, srtp("off", "require"))
	})
	t.Run("within a call", func(t *testing.T) {
		scenario(t, briefCity(t, "101"), func(t *testing.T, r *rig) {
			caller, agent := r.secureCall(secureVoice(callerHz), secureVoice(phoneHz, cm))
			time.Sleep(time.Second)
			sdp := string(agent.LocalSDP())
			clear := strings.Replace(sdp, "RTP/SAVP", "RTP/AVP", 1)
			if i := strings.Index(clear, "a=crypto"); i >= 0 {
				clear = clear[:i] + clear[i+strings.Index(clear[i:], "\n")+1:]
			}
			res, err := agent.ReInvite(t.Context(), []byte(clear))
			r.must(err)
			if w := res.Get("Warning"); res.Status != 488 || !strings.HasPrefix(w, "302 ") {
				t.Errorf("answered %s, Warning %q", res, w)
			}
			refused := time.Now()
			time.Sleep(time.Second)
			hears(t, "caller", caller.Heard().Since(refused), phoneHz, callerHz)
			caller.Hangup()
			r.must(agent.WaitEnded(time.Second))
		}, srtp("off", "offer"), func(r *rig) { r.lenient = true })
	})
}
