//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"centralka/pbx/pbxtest"
)

// Times that the bench allows for what should take much less.
const (
	benchReady    = 20 * time.Second // from the switch's start to ready
	benchPatience = 20 * time.Second // from INVITE to conversation
	benchRender   = 5 * time.Minute  // from the last BYE to the switch's end
	benchSettle   = time.Second      // from the agent's 200 to the first packet: the switch joins the two
)

// benchCity is what surrounds the switch, and its addresses: a block of
// 127.0.0.0/8 of its own, so that two benches do not meet.
type benchCity struct {
	dir                    string
	calls                  int
	at                     [3]netip.Addr // switch, carrier, phones
	sip, trunk, status     netip.AddrPort
	carrier                *pbxtest.Carrier
	phones                 []*pbxtest.Phone
	load                   *benchLoad
	placed                 []*pbxtest.Call
	talks                  []benchTalk
	mu                     sync.Mutex
	violations, unexpected []string
}

// benchTalk is one call as its parties saw it.
type benchTalk struct {
	parties        [2]*benchParty
	answered, over time.Time // by the agent; by the caller's BYE
}

func newBenchCity(dir string, calls int, load *benchLoad) (*benchCity, error) {
	c := &benchCity{dir: dir, calls: calls, load: load, talks: make([]benchTalk, calls)}
	c.at = [3]netip.Addr(benchAddrs())
	var err error
	if c.sip, err = benchFreeUDP(c.at[0]); err != nil {
		return nil, err
	}
	if c.trunk, err = benchFreeUDP(c.at[1]); err != nil {
		return nil, err
	}
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.at[0], 0)))
	if err != nil {
		return nil, fmt.Errorf("find a port for the status page: %w", err)
	}
	c.status = l.Addr().(*net.TCPAddr).AddrPort()
	return c, l.Close()
}

// benchAddrs are addresses for what is measured, for callers and for agents.
func benchAddrs() []netip.Addr {
	b, d := byte(64+rand.IntN(128)), byte(rand.IntN(256))
	var addrs []netip.Addr
	for i := range byte(3) {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, b, d, 1 + i}))
	}
	return addrs
}

// drops sums up what the kernel threw away at the bench's sockets, but for the
// RTCP of the load, which nobody reads.
func (c *benchCity) drops() (benchKernelDrops, error) {
	d, err := benchDropsOf(c.at[0], c.sip, nil)
	if err != nil {
		return d, err
	}
	all, err := benchDrops()
	c.load.do(func() {
		for _, p := range c.load.byFD {
			if p != nil {
				d.Load += all[p.addr]
			}
		}
	})
	return d, err
}

// benchFreeUDP finds a port that nobody has now.
func benchFreeUDP(a netip.Addr) (netip.AddrPort, error) {
	s, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a port for SIP: %w", err)
	}
	return s.LocalAddr().(*net.UDPAddr).AddrPort(), s.Close()
}

func (c *benchCity) vault() string { return filepath.Join(c.dir, "vault") }

func (c *benchCity) masterKey() string { return filepath.Join(c.dir, "master.key") }

func benchExtension(i int) string { return strconv.Itoa(1000 + i) }
func benchCaller(i int) string    { return fmt.Sprintf("+48600%06d", i) }

// benchCallOf is the call whose caller has this number, -1 if none.
func benchCallOf(number string) int {
	digits, ok := strings.CutPrefix(strings.TrimPrefix(number, "+"), "48600")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 0 {
		return -1
	}
	return n
}

const benchDialled = "+48914245000"

// configure writes what the switch needs and returns the configuration's path.
// The announcement is a tone of one second: the statutory one takes 17.
func (c *benchCity) configure() (string, error) {
	tone := benchTone(time.Second)
	var b, s strings.Builder
	fmt.Fprintf(&b, "[vault]\ndir = %q\nmaster_key = %q\n\n", c.vault(), c.masterKey())
	fmt.Fprintf(&b, "[sip]\nlisten = [\"udp://%v\"]\n\n", c.sip)
	fmt.Fprintf(&b, "[rtp]\nports = \"20000-29999\"\n\n")
	fmt.Fprintf(&b, "[[trunk]]\nname = \"carrier\"\nserver = %q\nfrom = [%q]\ncaller_number = %q\nmax_calls = %d\n\n", c.trunk, c.trunk, benchDialled, c.calls+1)
	fmt.Fprintf(&b, "[[number]]\nmatch = %q\ntarget = \"queue:bench\"\n\n", benchDialled)
	fmt.Fprintf(&b, "[announcement]\nfile = \"tone.wav\"\nsha256 = \"%x\"\n\n", sha256.Sum256(tone))
	var members []string
	for i := range c.calls {
		members = append(members, strconv.Quote(benchExtension(i)))
	}
	fmt.Fprintf(&b, "[[queue]]\nname = \"bench\"\nmax_length = 0\nmembers = [%s]\n\n", strings.Join(members, ", "))
	fmt.Fprintf(&b, "[guard]\ntrusted = [\"127.0.0.0/8\"]\n\n")
	fmt.Fprintf(&b, "[web]\npublic = \"\"\nstaff = \"\"\nstatus = %q\n\n[secrets]\nfile = \"secrets.toml\"\n", c.status)
	s.WriteString("[extension]\n")
	for i := range c.calls {
		fmt.Fprintf(&b, "\n[[extension]]\nnumber = %q\nname = \"Agent %d\"\n", benchExtension(i), i)
		fmt.Fprintf(&s, "%s = \"secret-%d\"\n", benchExtension(i), i)
	}
	path := filepath.Join(c.dir, "centralka.toml")
	return path, errors.Join(
		os.WriteFile(path, []byte(b.String()), 0o600),
		os.WriteFile(filepath.Join(c.dir, "secrets.toml"), []byte(s.String()), 0o600),
		os.WriteFile(filepath.Join(c.dir, "tone.wav"), tone, 0o600),
	)
}

// benchTone is a WAV of 425 Hz, 8 kHz mono.
func benchTone(d time.Duration) []byte {
	n := int(d * pbxtest.Rate / time.Second)
	le := binary.LittleEndian
	b := append([]byte("RIFF"), le.AppendUint32(nil, uint32(36+2*n))...)
	b = append(b, "WAVEfmt "...)
	b = le.AppendUint32(b, 16)
	b = le.AppendUint16(b, 1) // PCM
	b = le.AppendUint16(b, 1)
	b = le.AppendUint32(b, pbxtest.Rate)
	b = le.AppendUint32(b, 2*pbxtest.Rate)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 16)
	b = append(b, "data"...)
	b = le.AppendUint32(b, uint32(2*n))
	for i := range n {
		b = le.AppendUint16(b, uint16(int16(8000*math.Sin(2*math.Pi*425*float64(i)/pbxtest.Rate))))
	}
	return b
}

// open makes carrier and phones.
func (c *benchCity) open() (err error) {
	voice := pbxtest.Voice{Deaf: true, NoEvents: true}
	c.carrier, err = pbxtest.NewCarrier(pbxtest.PeerConfig{
		Name: "carrier", Listen: c.listener(), Addr: c.trunk, Switch: c.sip, Seed: 1, Voice: voice, Forget: true,
	})
	if err != nil {
		return err
	}
	for i := range c.calls {
		p, err := pbxtest.NewPhone(pbxtest.PeerConfig{
			Name: benchExtension(i), Password: fmt.Sprintf("secret-%d", i), Listen: c.listener(), Addr: netip.AddrPortFrom(c.at[2], 0),
			Switch: c.sip, Seed: uint64(2 + i), Voice: voice, Forget: true, Behave: pbxtest.Always(pbxtest.AnswerAfter(100 * time.Millisecond)),
		})
		if err != nil {
			return err
		}
		c.phones = append(c.phones, p)
	}
	return nil
}

// listener opens a peer's sockets: the first is its SIP socket, the others are
// voice.
func (c *benchCity) listener() pbxtest.Listen {
	var once sync.Once
	return func(a netip.AddrPort) (s pbxtest.Socket, err error) {
		first := false
		once.Do(func() { first = true })
		if first {
			return pbxtest.ListenUDP(a)
		}
		return c.load.listen(a)
	}
}

// ready waits until the switch says that it takes calls.
func (c *benchCity) ready(ctx context.Context, s *benchChild) error {
	end := time.Now().Add(benchReady)
	for last := ""; ; {
		res, err := http.Get(fmt.Sprintf("http://%v/readyz", c.status))
		if err != nil {
			last = err.Error()
		} else {
			last = res.Status
			if err := res.Body.Close(); err != nil {
				return err
			}
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.done:
			return fmt.Errorf("the switch ended: %w; its log ends:\n%s", s.err, s.tail())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("the switch is not ready within %v: %s; its log ends:\n%s", benchReady, last, s.tail())
		}
	}
}

// register binds all phones, four at a time.
func (c *benchCity) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, benchPatience+time.Duration(c.calls)*50*time.Millisecond)
	defer cancel()
	work := make(chan *pbxtest.Phone)
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for p := range work {
				errs[i] = errors.Join(errs[i], p.Register(ctx))
			}
		})
	}
	for _, p := range c.phones {
		work <- p
	}
	close(work)
	wg.Wait()
	return errors.Join(errs...)
}

// place makes the calls, one each interval, and waits until every caller
// talks to an agent. It returns how long each INVITE waited for its 200.
func (c *benchCity) place(ctx context.Context, interval time.Duration) ([]time.Duration, error) {
	c.placed = make([]*pbxtest.Call, c.calls)
	var wg sync.WaitGroup
	errs := make([]error, c.calls)
	for i, p := range c.phones {
		wg.Go(func() { errs[i] = c.attend(p, benchPatience+time.Duration(c.calls)*interval) })
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var err error
	for i := range c.calls {
		var call *pbxtest.Call
		if call, err = c.carrier.Call(pbxtest.CallOptions{From: benchCaller(i), PAI: benchCaller(i), To: benchDialled}); err != nil {
			break
		}
		c.mu.Lock()
		c.placed[i] = call
		c.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	var times []time.Duration
	for _, call := range c.placed {
		if err == nil {
			err = call.WaitAnswered(benchPatience)
		}
		if err == nil {
			times = append(times, call.At(pbxtest.Answered).Sub(call.At(pbxtest.Dialling)))
		}
	}
	wg.Wait()
	return times, errors.Join(append(errs, err)...)
}

// attend waits for a phone's call and lets its two parties talk once the
// switch has had time to join them.
func (c *benchCity) attend(p *pbxtest.Phone, patience time.Duration) error {
	call, err := p.WaitCall(patience)
	if err != nil {
		return err
	}
	if err := call.WaitAnswered(benchPatience); err != nil {
		return err
	}
	time.Sleep(benchSettle)
	i := benchCallOf(call.Invite().Number("From"))
	if i < 0 || i >= c.calls {
		return fmt.Errorf("%s: rung by %q, which is nobody of ours", p.Name(), call.Invite().Number("From"))
	}
	c.mu.Lock()
	caller := c.placed[i]
	c.mu.Unlock()
	var parties [2]*benchParty
	var to [2]netip.AddrPort
	for side, leg := range []*pbxtest.Call{caller, call} {
		sdp := leg.RemoteSDP()
		if sdp == nil || !sdp.Audio.Addr().Is4() {
			return fmt.Errorf("%s: call %d has no IPv4 address for voice", p.Name(), i)
		}
		to[side] = sdp.Audio
		if parties[side] = c.load.party(leg.MediaAddr()); parties[side] == nil {
			return fmt.Errorf("%s: call %d has no party at %v", p.Name(), i, leg.MediaAddr())
		}
	}
	c.talks[i] = benchTalk{parties: parties, answered: call.At(pbxtest.Answered)}
	c.load.converse(i, parties, to)
	return nil
}

// hangUp ends all calls, one each interval, and waits for the ends.
func (c *benchCity) hangUp(interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i, call := range c.placed {
		if call.State() == pbxtest.Ended {
			c.unexpected = append(c.unexpected, fmt.Sprintf("call %d ended before its time: %+v", i, call.End()))
		}
		c.talks[i].over = time.Now()
		call.Hangup()
		<-tick.C
	}
	for _, call := range c.placed {
		if err := call.WaitEnded(benchPatience); err != nil {
			return err
		}
	}
	return nil
}

// close ends the peers and keeps what they complained of.
func (c *benchCity) close() error {
	var errs []error
	var peers []*pbxtest.Peer
	if c.carrier != nil {
		peers = append(peers, c.carrier.Peer)
	}
	for _, p := range c.phones {
		peers = append(peers, p.Peer)
	}
	for _, p := range peers {
		c.violations = append(c.violations, p.Violations()...)
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
