package pbxtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/zaf/g711"
)

// Rate is the sample rate of all audio here, in Hz.
const Rate = 8000

// Voice says how a call speaks and listens. The zero value says nothing,
// listens, and offers A-law before µ-law in frames of 20 ms.
type Voice struct {
	// Say is what is said from the moment media may flow; nil sends nothing.
	Say Source
	// Limit ends Say after so much of it, as DTX does for the rest of a long
	// call; 0 is no limit.
	Limit time.Duration
	// Codecs are offered in this order; an answer takes the first that was
	// offered.
	Codecs []Codec
	// Ptime is 10 to 60 ms in whole tens; 20 ms if zero.
	Ptime time.Duration
	// NoEvents leaves telephone-event out of the SDP.
	NoEvents bool
	// DTX sends nothing while the source is silent; ComfortNoise announces each
	// such silence with a packet (RFC 3389 §4).
	DTX, ComfortNoise bool
	// SkewPPM makes the speaker's clock fast (positive) or slow, in parts per
	// million.
	SkewPPM float64
	// Start fixes where the RTP stream begins; nil draws all three.
	Start *StreamStart
	// Loss, Duplicate and Reorder (one packet late) happen to what is sent, on
	// top of what the Net does.
	Loss, Duplicate, Reorder float64
	// Tolerance is how far a timestamp may be from the time of arrival, against
	// the packet before, until it counts as a violation; 100 ms if zero. Over
	// real sockets on a busy machine take a second.
	Tolerance time.Duration
	// SRTP are the suites that the call speaks, by their names in SDP, the better
	// first; none: RTP in the clear. Offers are RTP/SAVP with a key for each suite,
	// or RTP/AVP with BestEffort; offers in the clear are answered so.
	SRTP       []string
	BestEffort bool
	// Deaf counts packets but keeps no audio, for load.
	Deaf bool
}

// StreamStart is the first packet of an RTP stream.
type StreamStart struct {
	SSRC      uint32
	Sequence  uint16
	Timestamp uint32
}

// media is what offer and answer have settled.
type media struct {
	remote        netip.AddrPort
	codec         Codec
	event         uint8
	send, receive bool
	ours, theirs  Crypto // zero: in the clear
}

// endpoint is the mouth and ear of one call: a goroutine that reads, and one
// that sends from the first thing said on. A second socket on the next port
// takes RTCP, which is not read.
type endpoint struct {
	cfg   Voice
	peer  *Peer
	sock  Socket
	rtcp  Socket
	addr  netip.AddrPort
	wake  chan struct{}
	done  chan struct{}
	epoch time.Time // of the speaker's frames

	mu      sync.Mutex
	closed  bool
	media   media
	source  Source
	since   int           // frame at which the source begins
	limit   time.Duration // of the source
	frame   int           // next frame
	keys    []byte
	key     keyPress
	talking bool // the last frame was sent
	ssrc    uint32
	seq     uint16
	stamp   uint32 // timestamp of frame 0
	rnd     *rand.Rand
	held    []byte // a packet that waits to be overtaken
	running bool
	secret  secrecy
	ear     ear
}

// keyPress is a DTMF event under way (RFC 4733 §2.3).
type keyPress struct {
	code  byte
	down  int // frames that the key is held
	left  int // frames to go, the gap behind it included
	start uint32
}

func newEndpoint(p *Peer, v Voice) (*endpoint, error) {
	if len(v.Codecs) == 0 {
		v.Codecs = []Codec{PCMA, PCMU}
	}
	if v.Ptime == 0 {
		v.Ptime = 20 * time.Millisecond
	}
	if v.Tolerance == 0 {
		v.Tolerance = 100 * time.Millisecond
	}
	e := &endpoint{cfg: v, peer: p, wake: make(chan struct{}, 1), done: make(chan struct{}), epoch: time.Now(), source: v.Say, limit: v.Limit}
	e.rnd = rand.New(rand.NewPCG(p.rnd.Uint64(), 1))
	e.ssrc, e.seq, e.stamp = e.rnd.Uint32(), uint16(e.rnd.Uint32()), e.rnd.Uint32()
	if len(v.SRTP) > 0 {
		e.seq >>= 1 // not before a wrap that the first packets could miss (RFC 4568 §6.4)
	}
	if s := v.Start; s != nil {
		e.ssrc, e.seq, e.stamp = s.SSRC, s.Sequence, s.Timestamp
	}
	e.ear = ear{tolerance: v.Tolerance, deaf: v.Deaf}
	if err := e.open(p); err != nil {
		return nil, err
	}
	p.wg.Go(e.listen)
	return e, nil
}

// open takes an even port for RTP and the next for RTCP (RFC 3550 §11).
func (e *endpoint) open(p *Peer) error {
	var odd []Socket // kept until the end, or they would be picked again
	defer func() {
		for _, s := range odd {
			s.Close()
		}
	}()
	for range 100 {
		s, err := p.cfg.Listen(netip.AddrPortFrom(p.addr.Addr(), 0))
		if err != nil {
			return err
		}
		port := s.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		if port%2 == 1 || port == 65534 {
			odd = append(odd, s)
			continue
		}
		if e.rtcp, err = p.cfg.Listen(netip.AddrPortFrom(p.addr.Addr(), port+1)); err != nil {
			odd = append(odd, s)
			continue
		}
		e.sock, e.addr = s, netip.AddrPortFrom(p.addr.Addr(), port)
		return nil
	}
	return errors.New("no pair of ports is free")
}

// configure is called with the peer locked; it never calls the peer.
func (e *endpoint) configure(m media) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ear.expect(m)
	if err := e.secret.rekey(m.ours, m.theirs); err != nil {
		e.ear.complain(time.Now(), "SRTP: %v", err)
	}
	e.media = m
	e.start()
}

// ready is called when we have offered to receive: what is heard from then on
// is allowed, before the answer has come (RFC 3264 §5.1).
func (e *endpoint) ready() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ear.quietBy = time.Time{}
}

func (e *endpoint) say(s Source, limit time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.catchUp()
	e.source, e.since, e.limit = s, e.frame, limit
	e.start()
}

func (e *endpoint) press(keys string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.media.event == 0 {
		return fmt.Errorf("%s: press keys: telephone-event was not negotiated", e.peer.cfg.Name)
	}
	for _, k := range keys {
		code := strings.IndexRune(keypad, k)
		if code < 0 {
			return fmt.Errorf("%s: press keys: no key %q", e.peer.cfg.Name, k)
		}
		e.keys = append(e.keys, byte(code))
	}
	e.start()
	return nil
}

const keypad = "0123456789*#ABCD"

func (e *endpoint) changeSSRC() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ssrc, e.seq, e.stamp = e.rnd.Uint32(), uint16(e.rnd.Uint32()), e.rnd.Uint32()
}

func (e *endpoint) wrongs() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []string
	for _, w := range e.ear.wrong {
		all = append(all, fmt.Sprintf("%s +%v: %s", e.peer.cfg.Name, w.at.Sub(e.peer.began).Round(time.Millisecond), w.text))
	}
	return all
}

func (e *endpoint) heard() Heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ear.snapshot()
}

// close is idempotent and does not wait; the peer waits for the goroutines.
func (e *endpoint) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	close(e.done)
	return errors.Join(e.sock.Close(), e.rtcp.Close())
}

// The rest of the mouth. start, catchUp, due and next are called with e.mu
// held.

func (e *endpoint) busy() bool {
	return e.media.send && (e.source != nil || len(e.keys) > 0 || e.key.left > 0)
}

func (e *endpoint) start() {
	if e.closed || !e.busy() {
		return
	}
	if !e.running {
		e.running = true
		e.peer.wg.Go(e.speak)
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// due is when a frame is to be sent: an absolute schedule by the speaker's
// clock, so that lateness does not add up.
func (e *endpoint) due(frame int) time.Time {
	return e.epoch.Add(time.Duration(float64(frame) * float64(e.cfg.Ptime) / (1 + e.cfg.SkewPPM*1e-6)))
}

// catchUp moves to the first frame that is not past, after a pause.
func (e *endpoint) catchUp() {
	elapsed := float64(time.Since(e.epoch)) * (1 + e.cfg.SkewPPM*1e-6)
	if k := int(math.Ceil(elapsed/float64(e.cfg.Ptime) - 1e-6)); k > e.frame {
		e.frame = k
	}
}

// speak is the goroutine of a call that says something.
func (e *endpoint) speak() {
	samples := int(e.cfg.Ptime * Rate / time.Second)
	pcm := make([]int16, samples)
	buf := make([]byte, 0, 12+samples)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	idle := true
	for {
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			return
		}
		if !e.busy() {
			idle, e.talking = true, false
			e.mu.Unlock()
			select {
			case <-e.wake:
			case <-e.done:
				return
			}
			continue
		}
		if idle {
			e.catchUp()
			idle = false
		}
		if wait := time.Until(e.due(e.frame)); wait > 0 {
			e.mu.Unlock()
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-e.done:
				return
			}
			continue
		}
		to := e.media.remote
		buf = e.secret.seal(e.next(pcm, buf[:0]))
		again, late := e.mishap(buf)
		e.mu.Unlock()
		for range again {
			e.write(buf, to)
		}
		if late != nil {
			e.write(late, to)
		}
	}
}

func (e *endpoint) write(b []byte, to netip.AddrPort) {
	if _, err := e.sock.WriteToUDPAddrPort(b, to); err == nil || errors.Is(err, net.ErrClosed) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ear.unsent++
}

// mishap decides what becomes of a packet: how often it is sent now, and which
// earlier one follows it.
func (e *endpoint) mishap(b []byte) (times int, late []byte) {
	if len(b) == 0 {
		return 0, nil
	}
	c := &e.cfg
	if c.Loss == 0 && c.Duplicate == 0 && c.Reorder == 0 {
		return 1, nil
	}
	late, e.held = e.held, nil
	loss, dup, order := e.rnd.Float64(), e.rnd.Float64(), e.rnd.Float64()
	switch {
	case loss < c.Loss:
		return 0, late
	case order < c.Reorder && late == nil:
		e.held = append([]byte(nil), b...)
		return 0, nil
	case dup < c.Duplicate:
		return 2, late
	}
	return 1, late
}

// next makes the packet of the next frame; it is empty if nothing is sent.
func (e *endpoint) next(pcm []int16, b []byte) []byte {
	stamp := e.stamp + uint32(e.frame*len(pcm))
	first := (e.frame - e.since) * len(pcm)
	e.frame++
	speaking, voiced := e.source != nil, false
	if speaking {
		voiced = e.source(first, pcm)
		if e.limit > 0 && time.Duration(first+len(pcm))*time.Second/Rate >= e.limit {
			e.source = nil
		}
	}
	gap := int((60*time.Millisecond + e.cfg.Ptime - 1) / e.cfg.Ptime)
	if e.key.left == 0 && len(e.keys) > 0 {
		down := int((100*time.Millisecond + e.cfg.Ptime - 1) / e.cfg.Ptime)
		e.key = keyPress{code: e.keys[0], left: down + gap, down: down, start: stamp}
		e.keys = e.keys[1:]
	}
	if e.key.left > 0 {
		sent := e.key.down + gap - e.key.left
		e.key.left--
		if sent <= e.key.down+1 { // the end is sent three times (RFC 4733 §2.5.1.4)
			return e.event(b, sent, len(pcm))
		}
	}
	if !speaking || e.cfg.DTX && !voiced {
		was := e.talking
		e.talking = false
		if e.cfg.ComfortNoise && was {
			b = e.header(b, 13, false, stamp)
			return append(b, 60) // -60 dBov
		}
		return b
	}
	b = e.header(b, uint8(e.media.codec), !e.talking, stamp)
	e.talking = true
	if e.media.codec == PCMU {
		for _, s := range pcm {
			b = append(b, g711.EncodeUlawFrame(s))
		}
		return b
	}
	for _, s := range pcm {
		b = append(b, g711.EncodeAlawFrame(s))
	}
	return b
}

func (e *endpoint) event(b []byte, sent, samples int) []byte {
	duration := min(sent+1, e.key.down) * samples
	b = e.header(b, e.media.event, sent == 0, e.key.start)
	flags := byte(10) // volume
	if sent+1 >= e.key.down {
		flags |= 0x80
	}
	b = append(b, e.key.code, flags)
	return binary.BigEndian.AppendUint16(b, uint16(duration))
}

func (e *endpoint) header(b []byte, pt uint8, marker bool, stamp uint32) []byte {
	if marker {
		pt |= 0x80
	}
	b = append(b, 0x80, pt)
	b = binary.BigEndian.AppendUint16(b, e.seq)
	e.seq++
	b = binary.BigEndian.AppendUint32(b, stamp)
	return binary.BigEndian.AppendUint32(b, e.ssrc)
}

// listen is the goroutine of the ear.
func (e *endpoint) listen() {
	buf := make([]byte, 2048)
	for {
		n, from, err := e.sock.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier write
		}
		now := time.Now()
		e.mu.Lock()
		if !e.closed {
			if len(e.cfg.SRTP) > 0 && !e.media.remote.IsValid() {
				e.mu.Unlock()
				continue // it came before the key
			}
			b, err := e.secret.open(buf[:n])
			if err != nil {
				e.ear.complain(now, "SRTP: %v", err)
				e.mu.Unlock()
				continue
			}
			e.ear.packet(b, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), now)
		}
		e.mu.Unlock()
	}
}
