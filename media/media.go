// Package media moves the voice: RTP ports, streams, relaying between two
// streams, prompts, DTMF events, RTCP, and the tap from which calls are
// recorded. It knows nothing of SIP, calls or files.
//
// An [Engine] owns the sockets. A [Stream] is one leg's RTP and RTCP port
// pair. Towards its peer a stream sends exactly one thing at a time: nothing
// (Silence), a prompt (Play) or what another stream receives (Relay); whatever
// it sends keeps one SSRC, with sequence numbers and timestamps continuous
// across every change of source (RFC 3550 §5.1). What a stream receives may be
// copied to a [Tap], in the clear.
//
// With keys in its [Params] a stream speaks SRTP: what comes is opened before
// anything else looks at it, what goes is sealed after all else is done.
//
// The packet path allocates nothing, logs nothing, touches no disk and holds
// no lock across a system call.
//
// Inside, each stream is a state machine without sockets, clock or locks
// (flow), and an engine is the shell round many of them: [NewLoop] makes the fast
// one, [NewPortable] one that works on every system and over any [Conn]. The
// goroutines are the engine's: [Engine].Run waits for all of them.
//
// Limits: G.711 in both laws, packets of up to 1024 bytes of payload, no mixing
// (a stream hears one origin at a time), RTP and RTCP on ports of their own.
package media

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"time"
)

// ErrNoPorts is returned by Open when every port pair of the range is in use
// or still draining.
var ErrNoPorts = errors.New("no free RTP port pair")

// Conn is a datagram socket; *net.UDPConn is one.
type Conn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
	LocalAddr() net.Addr
	Close() error
}

// Listen opens a Conn on exactly that address and port.
type Listen func(addr netip.AddrPort) (Conn, error)

// ListenUDP is the Listen of real sockets.
func ListenUDP(addr netip.AddrPort) (Conn, error) {
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
}

// Codec is one of the two G.711 laws, numbered as its static RTP payload type
// (RFC 3551 §6).
type Codec uint8

const (
	PCMU Codec = 0
	PCMA Codec = 8
)

// SampleRate is the clock of G.711 and of its RTP timestamps, in Hz.
const SampleRate = 8000

// FrameSamples is the length of one 20 ms frame in samples, which for G.711 is
// also its length in bytes.
const FrameSamples = 160

// FrameTime is the time between two frames that we send.
const FrameTime = 20 * time.Millisecond

// Direction says which ways media may flow, seen from us (RFC 3264 §6.1).
type Direction uint8

const (
	Inactive Direction = 0
	SendOnly Direction = 1
	RecvOnly Direction = 2
	SendRecv Direction = SendOnly | RecvOnly
)

// Params is what one offer/answer exchange settled for a stream.
type Params struct {
	// Remote is where RTP is sent: c= and m= of the peer's SDP.
	Remote netip.AddrPort
	// RemoteRTCP is where RTCP is sent; the zero value means Remote's port + 1.
	RemoteRTCP netip.AddrPort
	// Signalling is the address that the peer's SIP messages come from. Until
	// the first packet from Remote it is accepted as a source (symmetric RTP of
	// a phone behind NAT).
	Signalling netip.Addr
	// Codec is what we send; either law is accepted, told by payload type.
	Codec Codec
	// PayloadType is the number negotiated for Codec; usually its static one.
	PayloadType uint8
	// EventType is the payload type of telephone-event (RFC 4733) in both
	// directions; 0 means that none was negotiated.
	EventType uint8
	// Direction limits both ways. While it forbids receiving, the media timeout
	// is off.
	Direction Direction
	// SendKey and ReceiveKey protect what we send and what the peer sends, RTP
	// and RTCP (SRTP, RFC 3711); zero: in the clear. A key that stays the same
	// from one Configure to the next goes on where it was; a new one begins with
	// a rollover counter of zero. With a ReceiveKey, what was not made with it is
	// not taken.
	SendKey, ReceiveKey Key
}

// Equal reports whether both say the same.
func (p Params) Equal(o Params) bool {
	return p.Remote == o.Remote && p.RemoteRTCP == o.RemoteRTCP && p.Signalling == o.Signalling &&
		p.Codec == o.Codec && p.PayloadType == o.PayloadType && p.EventType == o.EventType && p.Direction == o.Direction &&
		p.SendKey.Equal(o.SendKey) && p.ReceiveKey.Equal(o.ReceiveKey)
}

// StreamConfig describes a stream to open.
type StreamConfig struct {
	// Label names the stream in errors; it never holds a number or a name.
	Label string
	// Notify is called with each Event of the stream, from goroutines of the
	// engine, one at a time and in order. It must not block, and may call the
	// stream. It may be nil.
	Notify func(Event)
}

// Event is something that happened on a stream: Played, DigitPressed, Heard
// or TimedOut.
type Event interface{ mediaEvent() }

// Played reports that a prompt ended. Complete is true only if every one of its
// frames was sent to the peer without a break, in one go, while Direction
// permitted sending; it is false when the prompt was replaced, or sending was
// forbidden in between.
type Played struct {
	Play     PlayID
	Complete bool
	// At is the instant of the last frame's end (Complete) or of the break.
	At time.Time
}

// DigitPressed reports one DTMF key (RFC 4733), once per key press.
type DigitPressed struct{ Digit byte }

// Heard reports the first packet accepted since the last Configure that changed
// Remote.
type Heard struct{ From netip.AddrPort }

// TimedOut reports that neither RTP nor RTCP came from the peer for the
// engine's timeout although Direction let it send. It is sent once until
// something is heard again.
type TimedOut struct{ Silent time.Duration }

func (Played) mediaEvent()       {}
func (DigitPressed) mediaEvent() {}
func (Heard) mediaEvent()        {}
func (TimedOut) mediaEvent()     {}

// PlayID tells one Play from the next on a stream.
type PlayID uint64

// Engine owns ports and packet loops. There are several kinds with one
// contract; the tests of the contract run over each of them.
type Engine interface {
	// Run serves until ctx is done, then closes what is still open and returns
	// when every goroutine of the engine has ended.
	Run(ctx context.Context) error
	// Open takes a free port pair (even RTP port, RTCP on the next) and begins
	// to receive. Packets are discarded, and not counted, until Configure.
	Open(cfg StreamConfig) (Stream, error)
	// Stats sums up over all streams, closed ones included.
	Stats() EngineStats
	// Lateness tells how late the engine is with what it does by the clock. It
	// waits for nothing: whoever admits calls looks at it.
	Lateness() Lateness
}

// Stream is one leg's media. Its methods are safe for concurrent use, never
// wait for the network, and do nothing once it is closed.
type Stream interface {
	// LocalPort is the RTP port; RTCP is on the next.
	LocalPort() uint16
	// Configure applies the outcome of an offer/answer exchange; it may be
	// called again at any time (re-INVITE). SSRC, sequence and timestamp of what
	// we send go on across it.
	Configure(p Params)
	// Play sends the prompt from its first frame in place of what was sent
	// before, paced by the clock without drift; loop repeats it for ever. The
	// end, or the replacement, is reported as Played with the returned id; that
	// may happen before Play has returned. Close is a replacement too.
	// Before Configure, and while Direction forbids sending, a prompt that does
	// not loop is broken off at once (Played, not Complete).
	Play(p *Prompt, loop bool) PlayID
	// Relay sends on what from, a stream of the same engine, receives,
	// transcoded if the laws differ. A stream is relayed to at most one other;
	// the one that relayed it before falls silent.
	Relay(from Stream)
	// Silence sends nothing.
	Silence()
	// SetTap copies every audio packet accepted from now on to t; nil ends it.
	// When SetTap has returned, no more packets reach the tap that was set
	// before.
	SetTap(t *Tap)
	// Stats reports counts since Open.
	Stats() StreamStats
	// Close ends the stream; its ports rest for the engine's drain time.
	Close()
}

// Bridge joins two streams in both directions.
func Bridge(a, b Stream) {
	a.Relay(b)
	b.Relay(a)
}

// StreamStats counts packets of one stream by what became of them. Of what came
// from the peer, Received were accepted; of those all but Unheard and Unclaimed
// were Relayed. Of what the peer was to get, Sent were sent.
type StreamStats struct {
	Received uint64 // RTP packets accepted from the peer
	Sent     uint64 // RTP packets sent to the peer
	Relayed  uint64 // accepted packets handed on to another stream

	Drops

	// Lost, Late, Duplicate and Gaps are read from the sequence numbers: packets
	// that never came, that came after a later one, that came again, and runs of
	// packets that were missing when the next one came.
	Lost, Late, Duplicate, Gaps uint64
	// Jitter is the estimate of RFC 3550 §A.8, now, on average and at worst.
	Jitter, JitterMean, JitterMax time.Duration
	RTT, RTTMax                   time.Duration // from RTCP, 0 if unknown
	// Reported: the peer has reported on what it received. RemoteLoss is the
	// fraction that it lost of late, 0..1, RemoteLost how many packets in all,
	// RemoteJitter its jitter.
	Reported     bool
	RemoteLoss   float64
	RemoteLost   uint64
	RemoteJitter time.Duration
	// Source is where packets come from now.
	Source netip.AddrPort
}

// Drops counts the packets that were not handed on, by cause.
type Drops struct {
	Foreign   uint64 // from a source that is not the peer's
	Malformed uint64 // not RTP version 2, truncated, or of a payload type not negotiated
	Forged    uint64 // SRTP and SRTCP that was not made with the peer's key
	Replayed  uint64 // SRTP and SRTCP that came again, or too late to tell
	Unheard   uint64 // came while Direction forbade it, or without voice (a keep-alive)
	Unclaimed uint64 // accepted while nobody was connected, or only a prompt was heard
	Omitted   uint64 // left out on purpose: comfort noise, keys that the other side cannot take
	Overtaken uint64 // so late that their place in what was sent is unknown
	Unsent    uint64 // could not be sent: socket error, Direction forbade it, or SRTP had used the number
}

func (d *Drops) add(e Drops) {
	d.Foreign += e.Foreign
	d.Malformed += e.Malformed
	d.Forged += e.Forged
	d.Replayed += e.Replayed
	d.Unheard += e.Unheard
	d.Unclaimed += e.Unclaimed
	d.Omitted += e.Omitted
	d.Overtaken += e.Overtaken
	d.Unsent += e.Unsent
}

// ByCause lists the counts that are not zero, by the names that call records and
// metrics use.
func (d Drops) ByCause() map[string]uint64 {
	all := map[string]uint64{
		"foreign": d.Foreign, "malformed": d.Malformed, "forged": d.Forged, "replayed": d.Replayed, "unheard": d.Unheard, "unclaimed": d.Unclaimed,
		"omitted": d.Omitted, "overtaken": d.Overtaken, "unsent": d.Unsent,
	}
	maps.DeleteFunc(all, func(_ string, n uint64) bool { return n == 0 })
	return all
}

// EngineStats sums up an engine.
type EngineStats struct {
	Kind     string // which engine runs, e.g. "portable"
	Streams  int    // open now
	Ports    int    // port pairs of the range
	Draining int    // port pairs that rest before reuse
	Received uint64
	Sent     uint64
	Drops
}
