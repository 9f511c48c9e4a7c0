//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"centralka/pbx/pbxtest"
)

// benchLoad sends and receives the voice of all calls: one thread, one epoll
// set, a socket for each party. Its thread keeps its place in Go's scheduler, for
// no system call of it blocks but the sleep. At each tick it sends what is due in the tick's
// slot, the parties being spread evenly over the slots of a frame's 20 ms, and
// then reads what has come, which the party's tally judges. It sleeps in between
// and lets no packet wake it, as a network card does not wait for a peer either:
// so whoever sends to it does not pay for that.
//
// A delay runs from just before sendto to the kernel's time stamp of the packet
// that came out, so the loop's own wake-up is not in it. Lateness tells how well
// the loop keeps its schedule.
//
// The loop owns all state but the queue of commands.
type benchLoad struct {
	epoll int
	epoch time.Time
	read  benchReader
	pause unix.Timespec

	mu       sync.Mutex
	commands []func()
	waiting  atomic.Bool // there are commands
	stopped  bool        // run has returned: commands are executed at once

	byFD      []*benchParty
	slots     [benchSlots][]*benchParty
	slot      int64 // next one to be sent
	measuring bool
	sentNow   uint64 // in the measured time
	gotNow    uint64
	delay     benchTimes
	lateness  benchTimes
	worst     time.Duration // lateness in all of the run
}

// benchLate is by how much the load may be late without harm: what stands
// still for longer is no phone any more, and what becomes of its packets says
// nothing about the switch.
const benchLate = 200 * time.Millisecond

const (
	benchTick  = 100 * time.Microsecond
	benchSlots = int64(benchTime / benchTick)
	// benchCatchUp is how many slots are sent in one tick at most.
	benchCatchUp = 20
	// benchEars is how many events of epoll are taken at once.
	benchEars = 512
)

// benchParty is one side of a call's voice: to pbxtest a socket on which
// nothing is ever heard, to the loop a stamped stream out and one in.
type benchParty struct {
	load *benchLoad
	addr netip.AddrPort
	over chan struct{} // closed by Close
	once sync.Once

	// The rest is the loop's.
	fd      int
	to      unix.RawSockaddrInet4
	slot    int64
	talking bool // it sends
	judging bool // what it receives is judged
	voice   benchVoice
	tally   benchTally
}

func newBenchLoad() (*benchLoad, error) {
	l := &benchLoad{epoch: time.Now()}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("open epoll: %w", err)
	}
	return l, nil
}

func (l *benchLoad) now() time.Duration { return time.Since(l.epoch) }

// run is the loop's goroutine; it returns after stop.
func (l *benchLoad) run(stop <-chan struct{}) (err error) {
	runtime.LockOSThread() // for good: the thread ends with its priority
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stopped = true
		l.obey()
		for _, p := range l.byFD {
			if p != nil {
				err = errors.Join(err, unix.Close(p.fd))
			}
		}
		l.byFD = nil
		err = errors.Join(err, unix.Close(l.epoll))
	}()
	// The kernel may wake a thread 50 µs later than it asked for; not this one.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("ask for exact timers: %w", err)
	}
	if err := benchUrgent(); err != nil {
		return fmt.Errorf("ask for priority: %w", err)
	}
	events := make([]unix.EpollEvent, benchEars)
	l.slot = int64(l.now() / benchTick)
	for {
		l.send()
		if err := l.hear(events); err != nil {
			return err
		}
		if l.waiting.Load() {
			l.mu.Lock()
			l.obey()
			l.mu.Unlock()
		}
		select {
		case <-stop:
			return nil
		default:
		}
		if pause := time.Duration(l.slot)*benchTick - l.now(); pause > 0 {
			l.pause = unix.NsecToTimespec(int64(pause))
			_, _, errno := unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&l.pause)), 0, 0)
			if errno != 0 && errno != unix.EINTR {
				return fmt.Errorf("wait for the next tick: %w", errno)
			}
		}
	}
}

// hear reads what has come since the last tick.
func (l *benchLoad) hear(events []unix.EpollEvent) error {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("look for packets: %w", errno)
		}
		if errno != 0 {
			return nil
		}
		for _, e := range events[:n] {
			l.receive(int(e.Fd))
		}
		if int(n) < len(events) {
			return nil
		}
	}
}

// obey executes the commands; mu is held.
func (l *benchLoad) obey() {
	for _, f := range l.commands {
		f()
	}
	l.commands = nil
	l.waiting.Store(false)
}

// do lets the loop execute f and waits for it.
func (l *benchLoad) do(f func()) {
	done := make(chan struct{})
	l.mu.Lock()
	l.commands = append(l.commands, func() { f(); close(done) })
	l.waiting.Store(true)
	if l.stopped {
		l.obey()
	}
	l.mu.Unlock()
	<-done
}

// send sends what is due, but not so much at once that receiving has to wait:
// after having been held up it catches up over several ticks.
func (l *benchLoad) send() {
	for range benchCatchUp {
		due := time.Duration(l.slot) * benchTick
		if due > l.now() {
			return
		}
		for _, p := range l.slots[l.slot%benchSlots] {
			if !p.talking {
				continue
			}
			now := time.Now()
			late := now.Sub(l.epoch) - due
			b := p.voice.next(l.wall(now))
			if _, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(p.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
				unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&p.to)), unix.SizeofSockaddrInet4); errno != 0 {
				p.tally.count.Unsent++
				continue
			}
			p.tally.count.Sent++
			l.worst = max(l.worst, late)
			if l.measuring {
				l.sentNow++
				l.lateness.add(late)
			}
		}
		l.slot++
	}
}

// wall is an instant by the wall clock, which the kernel's time stamps are of,
// counted from the epoch.
func (l *benchLoad) wall(t time.Time) time.Duration {
	return time.Duration(t.UnixNano() - l.epoch.UnixNano())
}

// receive reads all that a party has got.
func (l *benchLoad) receive(fd int) {
	p := l.byFD[fd]
	if p == nil {
		return // closed by a command since
	}
	for {
		b, stamp, ok := l.read.next(fd)
		if !ok {
			return
		}
		if !p.judging {
			continue // announcement and music
		}
		if sent, ok := p.tally.take(b); ok && l.measuring {
			l.gotNow++
			l.delay.add(time.Duration(stamp-l.epoch.UnixNano()) - sent)
		}
	}
}

// benchReader reads datagrams with the kernel's time stamps. unix.Recvmsg would
// allocate for each packet.
type benchReader struct {
	buf     [2048]byte
	control [64]byte
	iov     unix.Iovec
	msg     unix.Msghdr
}

// next reads a datagram, valid until the next call, and when it came, in ns of
// the wall clock; false if there is none. A pending ICMP error of an earlier
// packet is passed over.
func (r *benchReader) next(fd int) (b []byte, stamp int64, ok bool) {
	for range 2 {
		r.iov.Base = &r.buf[0]
		r.iov.SetLen(len(r.buf))
		r.msg = unix.Msghdr{Iov: &r.iov, Iovlen: 1, Control: &r.control[0]}
		r.msg.SetControllen(len(r.control))
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.msg)), unix.MSG_DONTWAIT)
		if errno == unix.EAGAIN {
			return nil, 0, false
		}
		if errno != 0 {
			continue
		}
		const at = unix.SizeofCmsghdr
		if r.msg.Controllen < at+16 {
			return r.buf[:n], 0, true
		}
		seconds, ns := binary.NativeEndian.Uint64(r.control[at:]), binary.NativeEndian.Uint64(r.control[at+8:])
		return r.buf[:n], int64(seconds)*1e9 + int64(ns), true
	}
	return nil, 0, false
}

// listen is pbxtest's Listen for calls' voices. RTP, which asks for any port,
// becomes a party; RTCP, which asks for the next, a socket that nobody reads.
func (l *benchLoad) listen(addr netip.AddrPort) (pbxtest.Socket, error) {
	if addr.Port() != 0 {
		return pbxtest.ListenUDP(addr)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a socket for voice: %w", err)
	}
	local := unix.Sockaddr(nil)
	// If this process is held up, packets wait; the kernel may allow less.
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20); err != nil {
		return nil, errors.Join(fmt.Errorf("make room for voice: %w", err), unix.Close(fd))
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for time stamps: %w", err), unix.Close(fd))
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4()}); err == nil {
		local, err = unix.Getsockname(fd)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind a socket for voice: %w", err), unix.Close(fd))
	}
	p := &benchParty{load: l, fd: fd, over: make(chan struct{})}
	p.addr = netip.AddrPortFrom(addr.Addr(), uint16(local.(*unix.SockaddrInet4).Port))
	l.do(func() {
		for len(l.byFD) <= fd {
			l.byFD = append(l.byFD, nil)
		}
		l.byFD[fd] = p
		err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)})
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch a socket for voice: %w", err), p.Close())
	}
	return p, nil
}

// ReadFromUDPAddrPort waits for Close: the loop hears for us.
func (p *benchParty) ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error) {
	<-p.over
	return 0, netip.AddrPort{}, net.ErrClosed
}

// WriteToUDPAddrPort refuses: the loop speaks for us.
func (p *benchParty) WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error) {
	return 0, errors.New("the load speaks for this party")
}

// LocalAddr is where the party listens.
func (p *benchParty) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(p.addr) }

// Close ends the party.
func (p *benchParty) Close() (err error) {
	p.once.Do(func() {
		close(p.over)
		p.load.do(func() {
			if p.fd >= len(p.load.byFD) || p.load.byFD[p.fd] != p {
				return // the loop has ended and closed it
			}
			p.talking, p.judging = false, false
			p.load.byFD[p.fd] = nil
			err = unix.Close(p.fd)
		})
	})
	return err
}

// converse makes two parties talk to each other as call i: each sends to the
// switch's address for it and judges what it hears of the other.
func (l *benchLoad) converse(i int, parties [2]*benchParty, to [2]netip.AddrPort) {
	l.do(func() {
		for side, p := range parties {
			p.voice = newBenchVoice(i, benchSide(side))
			p.tally = benchTally{call: uint32(i), side: benchSide(1 - side)}
			p.to = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to[side].Addr().As4()}
			binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&p.to.Port))[:], to[side].Port())
			p.slot = l.freest()
			l.slots[p.slot] = append(l.slots[p.slot], p)
			p.talking, p.judging = true, true
		}
	})
}

// freest is the slot with the fewest parties. A stride that shares no divisor
// with the number of slots keeps few parties from crowding at the frame's start.
func (l *benchLoad) freest() int64 {
	best := int64(0)
	for i := range benchSlots {
		if at := i * 37 % benchSlots; len(l.slots[at]) < len(l.slots[best]) {
			best = at
		}
	}
	return best
}

// hush ends all sending; what is under way is still judged.
func (l *benchLoad) hush() {
	l.do(func() {
		for _, slot := range l.slots {
			for _, p := range slot {
				p.talking = false
			}
		}
	})
}

// measure begins or ends the time that is measured.
func (l *benchLoad) measure(on bool) { l.do(func() { l.measuring = on }) }

// benchPicture is what the load has seen in the measured time so far.
type benchPicture struct {
	sent, got       uint64
	delay, lateness benchTimes
	worst           time.Duration
}

func (l *benchLoad) picture() (p benchPicture) {
	l.do(func() { p = benchPicture{l.sentNow, l.gotNow, l.delay, l.lateness, l.worst} })
	return p
}

// sum adds up what became of all packets so far. Those that are under way
// count as lost.
func (l *benchLoad) sum() (all benchCounts) {
	l.do(func() {
		for _, slot := range l.slots {
			for _, p := range slot {
				all.add(p.tally.count)
			}
		}
	})
	all.Lost = all.Sent - min(all.Received, all.Sent)
	return all
}

// party finds the party that listens at an address, nil if there is none.
func (l *benchLoad) party(at netip.AddrPort) (found *benchParty) {
	l.do(func() {
		for _, p := range l.byFD {
			if p != nil && p.addr == at {
				found = p
			}
		}
	})
	return found
}
