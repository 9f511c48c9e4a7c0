package pbx_test

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
	"centralka/store"
)

// streamCity is briefCity whose switch listens on every transport, with keys made
// for peers over TLS. Without a name for the carrier its server is an address.
func streamCity(t *testing.T, transport string, phones ...string) pbx.Config {
	t.Helper()
	cfg := briefCity(t, phones...)
	cfg.SIP.Listen = append(cfg.SIP.Listen, pbx.Listener{Transport: "tcp", Addr: switchAddr}, pbx.Listener{Transport: "tls", Addr: listenerOf("tls")})
	if transport != "" {
		cfg.Trunks[0].Server = transport + "://" + carrierAddr.String()
	}
	return cfg
}

// secured writes the switch's certificate and gives keys to the peers.
func secured(carrierNames ...string) func(*rig) {
	return func(r *rig) {
		ca := newAuthority(r.t)
		dir := r.t.TempDir()
		r.adapt = append(r.adapt, func(cfg *pbx.Config) {
			cfg.SIP.Certificate, cfg.SIP.Key = ca.write(dir, ca.issue(24*time.Hour*90, "centralka.test"))
			cfg.SIP.CA = ca.writeCA(dir)
		})
		r.carrierKeys = &tls.Config{Certificates: []tls.Certificate{ca.issue(time.Hour*24, carrierNames...)}, RootCAs: ca.pool(), ServerName: "centralka.test"}
		r.phonesKeys = &tls.Config{RootCAs: ca.pool(), ServerName: "centralka.test"}
	}
}

func by(carrier, phones string) func(*rig) {
	return func(r *rig) { r.carrierBy, r.phonesBy = carrier, phones }
}

// TestTrunkOverStreams: calls in and out by TCP and TLS; requests of both sides
// within the dialog; all of it by one connection each way.
func TestTrunkOverStreams(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			cfg := streamCity(t, transport, "101")
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
				call := r.call()
				agent, err := r.phones["101"].WaitCall(time.Minute)
				r.must(err)
				r.must(agent.WaitAnswered(10 * time.Second))
				time.Sleep(2 * time.Second)
				agent.Hangup()
				r.must(call.WaitEnded(time.Second))
				hears(t, "caller", call.Heard().Since(agent.At(pbxtest.Answered).Add(100*time.Millisecond)), phoneHz, callerHz)

				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				far, err := r.carrier.WaitCall(time.Second)
				r.must(err)
				r.must(out.WaitAnswered(3 * time.Second))
				via, contact := far.Invite().Get("Via"), far.Invite().Get("Contact")
				if !strings.HasPrefix(via, "SIP/2.0/"+strings.ToUpper(transport)+" "+listenerOf(transport).String()) || !strings.Contains(contact, listenerOf(transport).String()+";transport="+transport) {
					t.Errorf("Via %q, Contact %q", via, contact)
				}
				time.Sleep(time.Second)
				far.Hangup()
				r.must(out.WaitEnded(time.Second))
				if n := r.net.Streams(); n > 2 {
					t.Errorf("%d connections", n)
				}
			}, secured(carrierAddr.Addr().String()), by(transport, ""))
		})
	}
}

// TestPhonesOverStreams: a phone is called by the connection that it registered
// by; with that its binding ends; with a new one it is there again.
func TestPhonesOverStreams(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			cfg := streamCity(t, "", "101", "102")
			scenario(t, cfg, func(t *testing.T, r *rig) {
				phone := r.phones["101"]
				out, err := phone.Dial("102")
				r.must(err)
				in, err := r.phones["102"].WaitCall(time.Second)
				r.must(err)
				r.must(out.WaitAnswered(5 * time.Second))
				in.Hangup()
				r.must(out.WaitEnded(time.Second))
				if n := r.net.Streams(); n != 2 {
					t.Errorf("%d connections of two phones", n)
				}
				phone.Disconnect()
				time.Sleep(100 * time.Millisecond)
				if d := r.sw.Status().Phones[0].Devices; d != 0 {
					t.Errorf("%d devices without a connection", d)
				}
				lost, err := r.phones["102"].Dial("101")
				r.must(err)
				r.must(lost.WaitEnded(time.Second))
				if s := lost.End().Status; s != 480 {
					t.Errorf("a phone without a connection: %d", s)
				}
				r.must(phone.Register(t.Context()))
				back, err := r.phones["102"].Dial("101")
				r.must(err)
				r.must(back.WaitAnswered(5 * time.Second))
				back.Hangup()
				time.Sleep(time.Second)
			}, secured(), by("", transport))
		})
	}
}

// TestConnectionLost: the voice goes on without its signalling; who hangs up
// opens a new connection (RFC 3261 §18), whichever side it is, and no party hangs.
func TestConnectionLost(t *testing.T) {
	for name, ends := range map[string]func(call, agent *pbxtest.Call){
		"we hang up":   func(_, agent *pbxtest.Call) { agent.Hangup() },
		"they hang up": func(call, _ *pbxtest.Call) { call.Hangup() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := streamCity(t, "tcp", "101")
			scenario(t, cfg, func(t *testing.T, r *rig) {
				call := r.call()
				agent, err := r.phones["101"].WaitCall(time.Minute)
				r.must(err)
				r.must(agent.WaitAnswered(10 * time.Second))
				r.net.CutStreams()
				time.Sleep(2 * time.Second)
				if r.sw.Calls() != 1 {
					t.Fatal("the call ended with its connection")
				}
				ends(call, agent)
				r.must(call.WaitEnded(2 * time.Second))
				r.must(agent.WaitEnded(2 * time.Second))
				rec := r.only()
				if rec.Recording.Outcome != store.OutcomeOK {
					t.Errorf("recording %+v", rec.Recording)
				}
			}, secured(), by("tcp", ""))
		})
	}
}

// TestConnectionLostUnderRequest: a call goes out although the carrier has closed
// the connection of the last one.
func TestConnectionLostUnderRequest(t *testing.T) {
	t.Parallel()
	cfg := streamCity(t, "tcp", "101")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		// A connection that the carrier closed long ago: the INVITE goes by a new one.
		time.Sleep(40 * time.Second)
		r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
		r.carrier.Disconnect()
		out, err := r.phones["101"].Dial("0600100200")
		r.must(err)
		r.must(out.WaitAnswered(3 * time.Second))
		out.Hangup()
		time.Sleep(time.Second)
	}, secured(), by("tcp", ""))
}

// TestResponseByAnotherConnection: the caller's connection ends while its call
// is answered; the 200 reaches it by one to its Via (RFC 3261 §18.2.2).
func TestResponseByAnotherConnection(t *testing.T) {
	t.Parallel()
	cfg := streamCity(t, "tcp", "101")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		invite := r.carrier.NewRequest("INVITE", "sip:+48914245000@192.0.2.10;transport=tcp")
		conn, err := r.net.DialStream(t.Context(), carrierAddr.Addr(), switchAddr)
		r.must(err)
		_, err = conn.Write(invite.Bytes())
		r.must(err)
		time.Sleep(10 * time.Millisecond)
		r.must(conn.Close()) // the 200 has come by it; its repetition will not
		_, err = r.carrier.WaitMessage(5*time.Second, func(m *pbxtest.Message) bool {
			return m.Status == 200 && m.CallID() == invite.CallID()
		})
		r.must(err)
		time.Sleep(70 * time.Second) // until the switch gives it up
	}, secured(), by("tcp", ""), func(r *rig) { r.lenient = true })
}

// TestLargeRequest: what does not fit into a packet goes by TCP, and by UDP if
// nobody takes that (RFC 3261 §18.1.1); the dialog is the same.
func TestLargeRequest(t *testing.T) {
	for name, tcp := range map[string]bool{"TCP": true, "refused": false, "hangs": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := streamCity(t, "", "101")
			cfg.SIP.UserAgent = strings.Repeat("centralka ", 100)
			cfg.Trunks[0].Server = otherAddr.String()
			cfg.Trunks[0].From = append(cfg.Trunks[0].From, pbx.Source{Prefix: netip.PrefixFrom(otherAddr.Addr(), 32)})
			var peers []*pbxtest.Carrier
			scenario(t, cfg, func(t *testing.T, r *rig) {
				takes := peers[len(peers)-1]
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				far, err := takes.WaitCall(6 * time.Second)
				r.must(err)
				r.must(out.WaitAnswered(3 * time.Second))
				transport := "UDP"
				if tcp {
					transport = "TCP"
				}
				if via := far.Invite().Get("Via"); !strings.HasPrefix(via, "SIP/2.0/"+transport+" ") || len(far.Invite().Bytes()) < 1300 {
					t.Errorf("%d bytes by %q", len(far.Invite().Bytes()), via)
				}
				out.Hangup()
				r.must(far.WaitEnded(6 * time.Second))
				for _, p := range peers {
					r.must(p.Close())
					for _, v := range p.Violations() {
						t.Error(v)
					}
				}
			}, secured(), func(r *rig) {
				transports := []string{"udp"}
				if tcp {
					transports = append(transports, "tcp")
				}
				for _, transport := range transports {
					p, err := pbxtest.NewCarrier(pbxtest.PeerConfig{
						Name: "large-" + transport, Listen: r.net.Listen, Streams: r.net.Streamers(), Transport: transport, Addr: otherAddr, Switch: switchAddr,
						Seed: 8, Large: true, Voice: pbxtest.Voice{Say: pbxtest.Tone(callerHz)}, Behave: pbxtest.Always(pbxtest.AnswerAfter(time.Second)),
					})
					r.must(err)
					peers = append(peers, p)
				}
				if name == "hangs" {
					r.net.Blackhole(otherAddr)
				}
				r.large = true
			})
		})
	}
}

var otherAddr = netip.MustParseAddrPort("198.51.100.7:5060")

// TestWrongCertificate: a server that is not the one that the trunk names gets no
// call, and no second trunk is kept from getting it (RFC 5922 §7).
func TestWrongCertificate(t *testing.T) {
	for name, tc := range map[string]struct {
		names []string
		spoil func(r *rig, cfg *pbx.Config)
	}{
		"another name":     {[]string{"sip.other.example", "*.operator.example"}, nil},
		"another signer":   {[]string{"sip.operator.example"}, func(r *rig, cfg *pbx.Config) { cfg.SIP.CA = newAuthority(r.t).writeCA(r.t.TempDir()) }},
		"out of date":      {[]string{"sip.operator.example"}, func(r *rig, cfg *pbx.Config) { time.Sleep(25 * time.Hour) }},
		"only old TLS":     {[]string{"sip.operator.example"}, func(r *rig, cfg *pbx.Config) { r.carrierKeys.MaxVersion = tls.VersionTLS11 }},
		"nothing is wrong": {[]string{"SIP.operator.example"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := streamCity(t, "", "101")
			cfg.Trunks[0].Server = "tls://sip.operator.example"
			z := &zone{
				srv:   map[string][]*net.SRV{"_sips._tcp.sip.operator.example": {{Target: "a.operator.example.", Port: carrierAddr.Port()}}},
				hosts: map[string][]netip.Addr{"a.operator.example": {carrierAddr.Addr()}},
			}
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
				time.Sleep(31 * time.Second)
				trunk := r.sw.Status().Trunks[0]
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				if name == "nothing is wrong" {
					r.must(out.WaitAnswered(3 * time.Second))
					if to := r.carrierInvite().URI; to != "sip:+48600100200@sip.operator.example" {
						t.Errorf("Request-URI %q", to)
					}
					out.Hangup()
					time.Sleep(time.Second)
					return
				}
				r.must(out.WaitEnded(6 * time.Second))
				if trunk.Up || trunk.Err == "" || r.carrier.Calls() != 0 {
					t.Errorf("trunk %+v", trunk)
				}
			}, secured(tc.names...), by("tls", ""), with(z), func(r *rig) {
				if tc.spoil != nil {
					r.adapt = append(r.adapt, func(cfg *pbx.Config) { tc.spoil(r, cfg) })
				}
			})
		})
	}
}

// carrierInvite is the INVITE that the carrier got last.
func (r *rig) carrierInvite() *pbxtest.Message {
	r.t.Helper()
	m, err := r.carrier.WaitMessage(time.Second, func(m *pbxtest.Message) bool { return m.Method == "INVITE" })
	r.must(err)
	return m
}

// dialRaw opens a connection of somebody whom the test writes for.
func (r *rig) dialRaw(from string) net.Conn {
	r.t.Helper()
	c, err := r.net.DialStream(r.t.Context(), netip.MustParseAddr(from), switchAddr)
	r.must(err)
	return c
}

// closedWithin reports whether the switch ends c within d, and what it said.
func closedWithin(c net.Conn, d time.Duration) (said string, closed bool) {
	var b strings.Builder
	buf := make([]byte, 4096)
	limit := time.Now().Add(d)
	for {
		_ = c.SetReadDeadline(limit) // a StreamConn takes every deadline
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String(), time.Now().Before(limit)
		}
	}
}

// TestStreamLimits: a connection on which half a message lies, one that says
// nothing, one that does not read and one too many do not last; a keep-alive is
// answered (RFC 5626 §4.4.1).
func TestStreamLimits(t *testing.T) {
	t.Parallel()
	cfg := streamCity(t, "", "101")
	scenario(t, cfg, func(t *testing.T, r *rig) {
		options := func() string {
			return string(r.carrier.NewRequest("OPTIONS", "sip:192.0.2.10").Bytes())
		}
		half := r.dialRaw("203.0.113.1")
		_, err := half.Write([]byte(options()[:60]))
		r.must(err)
		if _, closed := closedWithin(half, 11*time.Second); !closed {
			t.Error("half a message is waited for")
		}
		silent := r.dialRaw("203.0.113.1")
		if _, closed := closedWithin(silent, 31*time.Second); !closed {
			t.Error("a stranger may be silent for ever")
		}
		alive := r.dialRaw("203.0.113.1")
		_, err = alive.Write([]byte("\r\n\r\n"))
		r.must(err)
		if said, closed := closedWithin(alive, time.Second); said != "\r\n" || closed {
			t.Errorf("a keep-alive is answered with %q", said)
		}
		r.must(alive.Close())

		// One segment holds several messages, and one message comes byte by byte.
		split := r.dialRaw("198.51.100.1")
		_, err = split.Write([]byte(options() + options() + options()))
		r.must(err)
		for _, b := range []byte(options()) {
			_, err := split.Write([]byte{b})
			r.must(err)
		}
		said, _ := closedWithin(split, time.Second)
		if n := strings.Count(said, "SIP/2.0 200 OK"); n != 4 {
			t.Errorf("%d of 4 requests are answered:\n%s", n, said)
		}
		r.must(split.Close())

		deaf := r.dialRaw("198.51.100.1")
		began := r.net.Streams()
		for range 4000 {
			if _, err := deaf.Write([]byte(options())); err != nil {
				break
			}
		}
		time.Sleep(15 * time.Second)
		if r.net.Streams() >= began {
			t.Error("who does not read is written to for ever")
		}
		var crowd []net.Conn
		for range 70 {
			crowd = append(crowd, r.dialRaw("203.0.113.2"))
		}
		time.Sleep(time.Second)
		if n := r.net.Streams(); n != 64 {
			t.Errorf("one stranger has %d connections", n)
		}
		for _, c := range crowd {
			r.must(c.Close())
		}
		time.Sleep(time.Second)
		if r.sw.Status().Guard["crowded"] != 6 {
			t.Errorf("guard %v", r.sw.Status().Guard)
		}
	}, secured(), func(r *rig) { r.lenient = true })
}

// TestCertificateIsReplaced: new connections get the new one, within half a
// minute and without a word; a file that cannot be used changes nothing.
func TestCertificateIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := streamCity(t, "", "101")
	var ca *authority
	var dir string
	scenario(t, cfg, func(t *testing.T, r *rig) {
		first := r.sw.Status().Certificate
		ca.write(dir, ca.issue(48*time.Hour, "centralka.test"))
		time.Sleep(31 * time.Second)
		second := r.sw.Status().Certificate
		if !second.Until.After(first.Until.Add(20*time.Hour)) || second.Err != "" {
			t.Errorf("before %+v, after %+v", first, second)
		}
		if n := r.net.Streams(); n != 1 {
			t.Errorf("the phone's connection is gone: %d", n)
		}
		r.phones["101"].Disconnect()
		r.must(r.phones["101"].Register(t.Context()))
		writePEM(t, cfg.SIP.Certificate, "CERTIFICATE", []byte("nonsense"))
		time.Sleep(31 * time.Second)
		if third := r.sw.Status().Certificate; third.Until != second.Until || third.Err == "" {
			t.Errorf("after a broken file %+v", third)
		}
	}, by("", "tls"), func(r *rig) {
		ca, dir = newAuthority(r.t), r.t.TempDir()
		cert, key := ca.write(dir, ca.issue(24*time.Hour, "centralka.test"))
		cfg.SIP.Certificate = cert
		r.adapt = append(r.adapt, func(c *pbx.Config) { c.SIP.Certificate, c.SIP.Key = cert, key })
		r.phonesKeys = &tls.Config{RootCAs: ca.pool(), ServerName: "centralka.test"}
	})
}

// TestConnectionReuse: what we say to a carrier that has a certificate goes by
// the connection that it opened, if it offers that (RFC 5923 §5), and by one of our
// own if it does not or has shown no certificate; we offer the same.
func TestConnectionReuse(t *testing.T) {
	for name, tc := range map[string]struct {
		alias   string
		mute    bool // shows no certificate as a client
		streams int
	}{
		"offered":               {";alias", false, 1},
		"not offered":           {"", false, 2},
		"without a certificate": {";alias", true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := streamCity(t, "", "101")
			cfg.SIP.OptionsInterval = 0
			cfg.Trunks[0].Server = "tls://sip.operator.example"
			z := &zone{
				srv:   map[string][]*net.SRV{"_sips._tcp.sip.operator.example": {{Target: "a.operator.example.", Port: carrierAddr.Port()}}},
				hosts: map[string][]netip.Addr{"a.operator.example": {carrierAddr.Addr()}},
			}
			scenario(t, cfg, func(t *testing.T, r *rig) {
				r.carrier.SetBehaviour(pbxtest.Always(pbxtest.AnswerAfter(time.Second)))
				in, err := r.carrier.Call(pbxtest.CallOptions{From: "+48600100200", To: "+48914245000", Edit: func(m *pbxtest.Message) { m.Set("Via", m.Get("Via")+tc.alias) }})
				r.must(err)
				r.answeredBy("101")
				in.Hangup()
				time.Sleep(2 * time.Second)
				if n := r.net.Streams(); n != 1 {
					t.Fatalf("%d connections before we call", n)
				}
				out, err := r.phones["101"].Dial("0600100200")
				r.must(err)
				r.must(out.WaitAnswered(3 * time.Second))
				if via := r.carrierInvite().Get("Via"); !strings.Contains(via, ";alias") {
					t.Errorf("Via %q", via)
				}
				if n := r.net.Streams(); n != tc.streams {
					t.Errorf("%d connections, want %d", n, tc.streams)
				}
				out.Hangup()
				time.Sleep(time.Second)
			}, secured("sip.operator.example"), by("tls", ""), with(z), func(r *rig) {
				if tc.mute {
					cert := r.carrierKeys.Certificates[0]
					r.carrierKeys.Certificates = nil
					r.carrierKeys.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
				}
			})
		})
	}
}
