package media

import (
	"net/netip"
	"time"

	"github.com/pion/rtp"
)

// PT 13 is comfort noise (RFC 3551 §6, RFC 3389).
const comfortNoiseType = 13

// maxDatagram is the size of the buffers that datagrams are read into; what
// fills one may have been cut short.
const maxDatagram = 2048

// Bounds of catching up after our own process was held up. Up to catchUp the
// frames that are overdue go out together, as the peer's jitter buffer expects
// them; after more the schedule starts again from now, the timestamp showing
// the gap. A prompt that stood still for longer than standstill was not heard in
// one go: it is broken off.
const (
	catchUp    = 200 * time.Millisecond
	standstill = time.Second
)

type flowMode uint8

const (
	silent flowMode = iota
	playing
	relaying
)

// flow is the state machine of one stream: packets and commands in, packets and
// events out. It has no sockets, no clock, no locks and no goroutines; instants
// are given as the time since the engine's epoch. An engine owns each flow and
// sees to it that calls do not overlap.
//
// What it sends is written into buffers of the caller, who sends it to
// rtp.target or rtcp.target and tells failed if that did not work.
type flow struct {
	epoch   time.Time
	timeout time.Duration // 0: off
	cname   string

	params     Params
	configured bool
	rtp, rtcp  source
	turn       uint32        // counts up when reception begins anew
	listening  time.Duration // since when Direction lets the peer send
	heardAt    time.Duration // of the last RTP or RTCP packet taken
	timedOut   bool
	greeted    bool // Heard was reported
	in         reception
	keys       keypad
	secure     protection

	mode  flowMode
	out   transmission
	relay relayMap
	play  performance
	plays PlayID

	reports reporting
	events  []Event
	count   StreamStats // only the packet counters are kept here
}

// performance is a prompt being played. Frame n is due n frame times after
// start, which keeps the pace free of drift.
type performance struct {
	id     PlayID
	prompt *Prompt
	loop   bool
	at     int // sample with which the next frame begins
	start  time.Duration
	n      int64
	ts     uint32 // timestamp of frame 0
	seated bool   // ts is set
}

func (p *performance) due() time.Duration { return p.start + time.Duration(p.n)*FrameTime }

// inbound is one packet that was accepted, valid until the buffer that it was
// read into is used again. The caller keeps one per reader.
type inbound struct {
	Packet        // as a tap wants it, but for Arrival
	event  []byte // payload of a KindEvent
	turn   uint32 // flow.turn
	header rtp.Header
}

func newFlow(epoch time.Time, at, timeout time.Duration, cname string) flow {
	return flow{epoch: epoch, timeout: timeout, cname: cname, out: newTransmission(at)}
}

func (f *flow) emit(e Event) { f.events = append(f.events, e) }

// configure applies new parameters.
func (f *flow) configure(p Params, at time.Duration) {
	p.Remote = unmap(p.Remote)
	if !p.RemoteRTCP.IsValid() && p.Remote.IsValid() && p.Remote.Port() < 1<<16-1 {
		p.RemoteRTCP = netip.AddrPortFrom(p.Remote.Addr(), p.Remote.Port()+1)
	}
	heard := f.configured && f.hears()
	if f.rtp.expect(p.Remote, p.Signalling, at) || !f.configured {
		f.greeted = false
		f.turn++
	}
	f.rtcp.expect(p.RemoteRTCP, p.Signalling, at)
	if !f.configured {
		f.reports.next = at + reportInterval()/2 // RFC 3550 §6.2: half of it before the first
	}
	f.secure.rekey(p.ReceiveKey, p.SendKey)
	f.params, f.configured = p, true
	if f.hears() && !heard {
		f.listening = at
		f.turn++
	}
	if f.mode == playing {
		f.seat(at)
	}
}

// hears tells whether Direction lets the peer send.
func (f *flow) hears() bool { return f.params.Direction&RecvOnly != 0 }

// speaks tells whether RTP can be sent now.
func (f *flow) speaks() bool {
	if !f.configured || f.params.Direction&SendOnly == 0 {
		return false
	}
	_, ok := f.rtp.target()
	return ok
}

// begin a prompt in place of what was sent before.
func (f *flow) playPrompt(p *Prompt, loop bool, at time.Duration) PlayID {
	f.silence(at)
	f.plays++
	f.mode = playing
	f.play = performance{id: f.plays, prompt: p, loop: loop}
	f.seat(at)
	return f.plays
}

// seat lets the prompt begin, go on, pause or end as sending is possible or not.
func (f *flow) seat(at time.Duration) {
	p := &f.play
	switch can := f.speaks() && p.prompt.samples() > 0; {
	case !can && !p.loop:
		f.breakOff(at)
	case !can:
		p.seated = false
	case !p.seated:
		_, p.ts = f.out.resume(at)
		p.start, p.n, p.seated = at+f.out.wait(), 0, true
	}
}

// breakOff ends a prompt before its end.
func (f *flow) breakOff(at time.Duration) { f.end(false, at) }

func (f *flow) end(complete bool, at time.Duration) {
	f.emit(Played{Play: f.play.id, Complete: complete, At: f.epoch.Add(at)})
	f.mode, f.play = silent, performance{}
}

// relayFrom makes forward the origin of what is sent.
func (f *flow) relayFrom(at time.Duration) {
	f.silence(at)
	f.mode, f.relay = relaying, relayMap{}
}

// silence ends whatever was sent.
func (f *flow) silence(at time.Duration) {
	if f.mode == playing {
		f.breakOff(at)
	}
	f.mode = silent
}

// failed takes back a packet that could not be sent. play is the prompt that it
// was a frame of, or 0: a prompt that lacks a frame was not played.
func (f *flow) failed(play PlayID, at time.Duration) {
	f.count.Sent--
	f.count.Unsent++
	if play != 0 && f.mode == playing && f.play.id == play && !f.play.loop {
		f.breakOff(at)
	}
}

// check reports a timeout that has come.
func (f *flow) check(at time.Duration) {
	if due, ok := f.silenceEnds(); ok && at >= due {
		f.timedOut = true
		f.emit(TimedOut{Silent: at - max(f.heardAt, f.listening)})
	}
}

// silenceEnds is when the media timeout strikes if nothing is heard.
func (f *flow) silenceEnds() (time.Duration, bool) {
	if f.timeout <= 0 || f.timedOut || !f.configured || !f.hears() {
		return 0, false
	}
	return max(f.heardAt, f.listening) + f.timeout, true
}

// due is when frame, report or check will next have something to do.
func (f *flow) due() (at time.Duration, ok bool) {
	soonest := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	if f.mode == playing && f.play.seated {
		soonest(f.play.due())
	}
	if t, on := f.silenceEnds(); on {
		soonest(t)
	}
	if f.configured {
		soonest(f.reports.next)
	}
	return at, ok
}

// stats are the counts so far.
func (f *flow) stats() StreamStats {
	s := f.count
	in, r := &f.in, &f.reports
	s.Lost, s.Late, s.Duplicate, s.Gaps = in.lost(), in.late, in.twice, in.gaps
	s.Jitter, s.JitterMean, s.JitterMax = in.jitterTime(), in.meanJitter(), time.Duration(in.jitterMax)*sampleTime
	s.RTT, s.RTTMax = r.rtt, r.rttMax
	s.Reported, s.RemoteLoss, s.RemoteLost, s.RemoteJitter = r.told, r.loss, r.lost, r.jitter
	s.Source = f.rtp.current
	return s
}
