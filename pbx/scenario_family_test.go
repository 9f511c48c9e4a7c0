package pbx_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// TestCallBetweenFamilies: a trunk of IPv6 and a phone of IPv4. Each is told
// addresses of its own family alone, also where one of them is advertised, both
// hear each other, and both are recorded.
func TestCallBetweenFamilies(t *testing.T) {
	t.Parallel()
	for name, advertise := range map[string]string{"own addresses": "", "IPv4 advertised": switchAddr.Addr().String(), "IPv6 advertised": switchAddr6.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			cfg := briefCity(t, "101")
			cfg.SIP.Listen = append(cfg.SIP.Listen, pbx.Listener{Transport: "udp", Addr: switchAddr6})
			cfg.SIP.Advertise, cfg.RTP.Advertise = advertise, advertise
			cfg.Trunks[0].Server = carrier6.String()
			cfg.Trunks[0].From = []pbx.Source{{Prefix: netip.PrefixFrom(carrier6.Addr(), 128)}}
			scenario(t, cfg, func(t *testing.T, r *rig) {
				call, agent := r.talk()
				own := func(who string, m *pbxtest.Message, is, other string) {
					t.Helper()
					if text := string(m.Bytes()); !strings.Contains(text, is) || strings.Contains(text, other) {
						t.Errorf("%s is told\n%s", who, text)
					}
					s, err := pbxtest.ParseSDP(m.Body)
					r.must(err)
					if !strings.Contains(string(m.Body), fmt.Sprintf("c=IN %s %s\r\n", map[bool]string{true: "IP4", false: "IP6"}[s.Audio.Addr().Is4()], s.Audio.Addr())) {
						t.Errorf("%s is told\n%s", who, m.Body)
					}
				}
				answer := func(p *pbxtest.Peer) *pbxtest.Message {
					m, err := p.WaitMessage(time.Second, func(m *pbxtest.Message) bool { return m.Status == 200 && len(m.Body) > 0 })
					r.must(err)
					return m
				}
				const four, six = "192.0.2.", "2001:db8:"
				own("the carrier", answer(r.carrier.Peer), six, four)
				own("the phone", agent.Invite(), four, six)
				time.Sleep(2 * time.Second)
				call.Hangup()
				r.must(agent.WaitEnded(time.Second))
				hears(t, "caller", call.Heard().Since(agent.At(pbxtest.Answered).Add(100*time.Millisecond)), phoneHz, callerHz)
				hears(t, "agent", agent.Heard().PCM, callerHz, phoneHz)
				rec := r.only()
				ended(t, rec, store.CauseHangupCaller, store.OutcomeOK)
				left, right := r.lanes(rec)
				hears(t, "left lane", left, callerHz, phoneHz)
				hears(t, "right lane", right, phoneHz, callerHz)

				r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				far, err := r.carrier.WaitCall(time.Second)
				r.must(err)
				r.must(out.WaitAnswered(3 * time.Second))
				own("the far end", far.Invite(), six, four)
				own("the phone", answer(r.phones["101"].Peer), four, six)
				out.Hangup()
				r.must(far.WaitEnded(time.Second))
			}, func(r *rig) { r.families = true })
		})
	}
}
