// Package pbxtest simulates what a telephone switch is connected to: carriers
// and desk phones that speak real SIP and RTP, over UDP sockets or over a
// network in memory, and ears that tell what was heard and when. The tests, the
// demo, the bench and the city simulator share it.
//
// It is an independent peer: it has its own SIP messages, transactions,
// dialogs, SDP, digest arithmetic and RTP, so that a bug of the switch has no
// twin here that hides it. What it receives it judges by the RFCs; each breach
// is kept in Violations, and a test fails if there is any.
//
// A scenario, in a testing/synctest bubble:
//
//	synctest.Test(t, func(t *testing.T) {
//		net, ladder := pbxtest.NewNet(1), pbxtest.NewLadder()
//		net.OnPacket(ladder.Tap)
//		must(t, startSwitch(t, net.Listen, switchAddr))
//		carrier, err := pbxtest.NewCarrier(pbxtest.PeerConfig{Name: "carrier", Listen: net.Listen,
//			Addr: carrierAddr, Switch: switchAddr, Voice: pbxtest.Voice{Say: pbxtest.Tone(425)}})
//		must(t, err)
//		phone, err := pbxtest.NewPhone(pbxtest.PeerConfig{Name: "101", Password: "secret", Listen: net.Listen,
//			Addr: phoneAddr, Switch: switchAddr, Voice: pbxtest.Voice{Say: pbxtest.Tone(620)},
//			Behave: pbxtest.Always(pbxtest.AnswerAfter(3 * time.Second))})
//		must(t, err)
//		must(t, phone.Register(t.Context()))
//		call, err := carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000"})
//		must(t, err)
//		agent, err := phone.WaitCall(time.Minute)
//		must(t, err)
//		must(t, agent.WaitAnswered(5*time.Second))
//		time.Sleep(10 * time.Second)
//		call.Hangup()
//		must(t, agent.WaitEnded(time.Second))
//		heard := call.Heard()
//		played := pbxtest.Find(heard.PCM, announcement)
//		if !played.Whole() || agent.At(pbxtest.Ringing).Before(heard.Start.Add(played.To)) {
//			t.Errorf("announcement %+v, phone rang at %v\n%s", played, agent.At(pbxtest.Ringing), ladder)
//		}
//		if !pbxtest.HasTone(heard.Since(agent.At(pbxtest.Answered)), 620) || !pbxtest.HasTone(agent.Heard().PCM, 425) {
//			t.Error("the two did not hear each other")
//		}
//		must(t, carrier.Close())
//		must(t, phone.Close())
//		for _, v := range append(carrier.Violations(), phone.Violations()...) {
//			t.Error(v)
//		}
//	})
//
// Inside a bubble a peer must be made and closed there. Close ends every
// goroutine of the peer: one reads its SIP socket, one refreshes a
// registration, and each call has one that hears and, once it speaks, one that
// speaks.
//
// Nothing here sleeps or polls: with the same seeds, packets meet the same fate
// and carry the same tags. Goroutines that are due at the same instant still run
// in any order.
//
// Limits: UDP and IPv4 only, G.711 only, SRTP with keys by SDES only, no RTCP (its port is
// open, but silent), one dialog for each INVITE. A call keeps all it has heard,
// 16 KB a second of the call, unless its Voice is Deaf.
package pbxtest
