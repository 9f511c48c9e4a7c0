//go:build amd64 || arm64

package media

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// idleAfter is how long a loop without packets keeps its place in the
	// scheduler.
	idleAfter = 200 * time.Millisecond
	// holdFor bounds one wait that keeps it, in milliseconds.
	holdFor = 20
	// eventsPerTurn bounds how much is read before orders and time are looked
	// at again: under a millisecond's worth.
	eventsPerTurn = 128
	// gatherFor is how far apart turns are, at least, while packets come so fast
	// that gatherMin of them come in that time: then they wait for one another, at
	// most so long, and the loop is woken once for several (ADR 12).
	gatherFor = 150 * time.Microsecond
	gatherMin = 2
	// rateWindow is how long packets are counted to know how fast they come.
	rateWindow = 10 * time.Millisecond
	// loopSlice is the shortest slice that the kernel takes.
	loopSlice = 100 * time.Microsecond
	// loopNice is the nice value of the thread that runs a loop, where the system
	// permits it.
	loopNice = -19
	// shortest is what is not worth a sleep of the thread.
	shortest = 20 * time.Microsecond
)

// loop is one packet loop. Its goroutine owns it, and the fields of its streams
// that are the loop's; other goroutines only post orders.
type loop struct {
	engine *loopEngine
	poll   int
	bell   int // eventfd: there are orders
	orders letters[order]
	load   int // streams; under the engine's mu

	quit   bool
	active time.Duration // when a packet last came or a frame went
	table  []entry       // by descriptor
	due    dueHeap
	closed EngineStats // sums of the streams that are gone
	late   punctuality

	woke    time.Duration // when the last turn began that had gathered
	counted int           // packets since window
	window  time.Duration
	gather  bool
	pause   unix.Timespec
	thread  int             // which is preferred
	usual   *unix.SchedAttr // how it was, nil if it is as it was

	events [eventsPerTurn]unix.EpollEvent
	buf    [maxDatagram]byte
	peer   sockaddr
	in     inbound
}

// order is something that the loop is to do. at is now.
type order func(l *loop, at time.Duration)

// entry is what a descriptor stands for.
type entry struct {
	stream *loopStream
	rtcp   bool
}

// post sends an order. Orders are obeyed in the order in which they were posted,
// and before any packet that arrives after post has returned.
func (l *loop) post(o order) {
	if !l.orders.put(o) {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// It can only fail when the counter is full, and then the bell rings anyway.
	_, _ = unix.Write(l.bell, one[:])
}

// run is the goroutine. It is not locked to its thread: it does not leave it
// while it is busy, and when the runtime makes it yield, it goes on at once on the
// same thread, which a locked goroutine could not (ADR 6).
func (l *loop) run() {
	for !l.quit {
		l.claim()
		l.turn()
	}
	l.resign()
}

// claim sees to it that the thread which runs the loop is preferred, and no other
// thread of ours is.
func (l *loop) claim() {
	if thread := unix.Gettid(); thread != l.thread {
		l.resign()
		l.thread = thread
		l.prefer()
		// A sleep is to end when it was to end, not 50 µs later.
		_, _, _ = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, 1, 0)
	}
}

// prefer gives the thread a short slice and, where the system permits it, the
// processor before whoever computes (ADR 12). With the slice the kernel (Linux 6.12
// and later) lets the loop go as soon as there is a packet, instead of when the
// other's slice is over; but only as long as the loop takes no more than its equal
// share of the processor, which beside two goroutines that compute is a third. The
// nice value raises the share. What the thread starts inherits neither.
//
// A kernel that refuses, or knows of no slices, schedules as it always did.
func (l *loop) prefer() {
	l.usual = nil
	attr, err := unix.SchedGetAttr(l.thread, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return
	}
	l.usual = attr
	first := *attr
	first.Runtime, first.Nice = uint64(loopSlice), min(attr.Nice, loopNice)
	first.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	if unix.SchedSetAttr(l.thread, &first, 0) != nil {
		first.Nice = attr.Nice
		_ = unix.SchedSetAttr(l.thread, &first, 0)
	}
}

// resign gives the thread back as it was. One that is gone needs nothing.
func (l *loop) resign() {
	if l.usual == nil {
		return
	}
	l.usual.Runtime = 0 // what is usual
	if unix.SchedSetAttr(l.thread, l.usual, 0) != nil {
		// Without privilege that flag stays, which does no harm.
		l.usual.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
		_ = unix.SchedSetAttr(l.thread, l.usual, 0)
	}
}

// turn waits for something to do and does it. As a call of a function that calls
// others it is also the point at which the runtime can stop this goroutine, be
// it for the collector; what waits in epollHold is woken for that by a signal.
func (l *loop) turn() {
	n := l.wait()
	if !l.orders.empty() {
		l.obey()
	}
	for i := range l.events[:n] {
		if fd := int(l.events[i].Fd); fd != l.bell {
			l.read(fd)
			continue
		}
		var count [8]byte
		// It was readable, and if it was not, there is nothing to reset.
		_, _ = unix.Read(l.bell, count[:])
		l.obey() // what was posted before the bell was reset
	}
	if n > 0 {
		l.pace(n, l.active)
	}
	l.keepTime()
}

// wait waits until a socket or the bell can be read or something is due. While
// packets flow the thread keeps its place in the scheduler: it is awake as soon
// as the kernel says so, whatever else the program computes. When nothing has
// been there for a while it gives it up, and the program can sleep.
func (l *loop) wait() int {
	now := l.engine.now()
	timeout := -1
	if len(l.due) > 0 {
		// Rounded up; so what is due within a millisecond is done together.
		timeout = int((max(l.due[0].wake-now, 0) + time.Millisecond - 1) / time.Millisecond)
	}
	if now-l.active > idleAfter {
		n, err := unix.EpollWait(l.poll, l.events[:], timeout)
		if err != nil { // EINTR
			return 0
		}
		return n
	}
	if timeout < 0 || timeout > holdFor {
		timeout = holdFor
	}
	if l.gather {
		l.await(now)
	}
	n, errno := epollHold(l.poll, l.events[:], timeout)
	if errno != 0 { // EINTR
		return 0
	}
	return n
}

// await sleeps until a turn is worth while: packets that come so fast are not
// worth a wake-up each.
func (l *loop) await(now time.Duration) {
	if left := l.woke + gatherFor - now; left > shortest {
		l.pause = unix.NsecToTimespec(int64(left))
		sleepHold(&l.pause)
		now = l.engine.now()
	}
	l.woke = now
}

// pace notes how many packets came in a turn and decides whether the next ones
// are to wait for one another.
func (l *loop) pace(packets int, at time.Duration) {
	l.counted += packets
	if passed := at - l.window; passed >= rateWindow {
		l.gather = time.Duration(l.counted)*gatherFor >= gatherMin*passed
		l.counted, l.window = 0, at
	}
}

// obey does what was ordered.
func (l *loop) obey() {
	at := l.engine.now()
	for o := l.orders.take(); o != nil; o = o.next {
		o.body(l, at)
	}
}

// watch lets epoll tell of a descriptor.
func (l *loop) watch(fd int, e entry) error {
	for len(l.table) <= fd {
		l.table = append(l.table, entry{})
	}
	if err := unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return err
	}
	l.table[fd] = e
	return nil
}

func (l *loop) unwatch(fd int) {
	if fd < len(l.table) {
		l.table[fd] = entry{}
	}
	// It fails only for what is not watched.
	_ = unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, fd, nil)
}

// adopt takes a stream in. One that could not be taken in hears nothing, but
// can be ended.
func (l *loop) adopt(s *loopStream) error {
	l.schedule(s)
	if err := l.watch(s.rtp.fd, entry{stream: s}); err != nil {
		return err
	}
	return l.watch(s.rtcp.fd, entry{stream: s, rtcp: true})
}

// release lets a stream go as it is.
func (l *loop) release(s *loopStream) {
	l.unwatch(s.rtp.fd)
	l.unwatch(s.rtcp.fd)
	if s.seat != nowhere {
		heap.Remove(&l.due, s.seat)
	}
}

// end ends a stream.
func (l *loop) end(s *loopStream, at time.Duration) {
	s.flow.silence(at)
	if bye, err := s.flow.goodbye(at); err != nil {
		l.engine.tell(report{stream: s, what: "make RTCP report", err: err})
	} else if bye != nil {
		l.sendReport(s, bye)
	}
	l.announce(s)
	l.release(s)
	s.tap, s.listens = nil, nil
	s.final = s.stats()
	l.closed.add(s.final)
	close(s.ended)
	l.engine.tell(report{stream: s, ended: true})
}

// stats sums up over the streams that are here and those that ended here.
func (l *loop) stats() EngineStats {
	sum := l.closed
	for i := range l.table {
		if e := &l.table[i]; e.stream != nil && !e.rtcp {
			sum.add(e.stream.stats())
		}
	}
	return sum
}

// announce hands the events of a stream to the clerk.
func (l *loop) announce(s *loopStream) {
	for i, e := range s.flow.events {
		l.engine.tell(report{stream: s, event: e})
		s.flow.events[i] = nil
	}
	s.flow.events = s.flow.events[:0]
}

// read takes one datagram from a socket; if there are more, the next turn does,
// so that a flood on one socket does not hold up the others.
func (l *loop) read(fd int) {
	e := l.table[fd]
	s := e.stream
	if s == nil { // let go in this turn
		return
	}
	sock := s.rtp
	if e.rtcp {
		sock = s.rtcp
	}
	n, errno := sock.receive(l.buf[:], &l.peer)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return
	case errno != 0:
		if !s.failing {
			s.failing = true
			l.engine.tell(report{stream: s, what: "read media socket", err: errno})
		}
		return
	}
	s.failing = false
	at := l.engine.now()
	l.active = at
	overdue := s.flow.timedOut
	if e.rtcp {
		s.flow.receiveRTCP(l.buf[:n], l.peer.addrPort(), at)
	} else {
		l.packet(s, l.buf[:n], l.peer.addrPort(), at)
	}
	if len(s.flow.events) > 0 {
		l.announce(s)
	}
	if overdue && !s.flow.timedOut {
		l.schedule(s) // the timeout runs again
	}
}

// packet handles one RTP datagram: judge, tap, relay. It is opened and rewritten
// where it lies: the header that we send is never longer than the one that came,
// and behind the longest payload there is room for the tag of SRTP.
func (l *loop) packet(s *loopStream, b []byte, from netip.AddrPort, at time.Duration) {
	if !s.flow.receive(b, from, at, &l.in) {
		return
	}
	if s.tap != nil {
		s.tap.Put(&l.in.Packet)
	}
	sink := s.listens
	if sink == nil {
		s.flow.count.Unclaimed++
		return
	}
	if l.in.Kind != KindComfortNoise {
		s.relayed++
	}
	if n := sink.flow.forward(&l.in, at, l.buf[:maxSent]); n > 0 {
		l.send(sink, l.buf[:n], 0, at)
	}
}

// send sends an RTP packet to the stream's peer. play is the prompt that it is a
// frame of, or 0.
func (l *loop) send(s *loopStream, b []byte, play PlayID, at time.Duration) {
	if to, _ := s.flow.rtp.target(); to != s.to {
		s.to = to
		s.target.set(to, s.rtp.family)
	}
	if errno := s.rtp.send(b, &s.target); errno != 0 {
		s.flow.failed(play, at)
		l.announce(s)
	}
}

// sendReport sends an RTCP packet. One that is lost is made up for by the next.
func (l *loop) sendReport(s *loopStream, b []byte) {
	to, _ := s.flow.rtcp.target()
	l.peer.set(to, s.rtcp.family)
	_ = s.rtcp.send(b, &l.peer)
}

// keepTime does what is due.
func (l *loop) keepTime() {
	if len(l.due) == 0 {
		return
	}
	at := l.engine.now()
	for len(l.due) > 0 && l.due[0].wake <= at {
		s := l.due[0]
		l.late.note(s.wake, at)
		l.tick(s, at)
		l.schedule(s)
	}
}

// tick does what is due on one stream: frames, timeout, report.
func (l *loop) tick(s *loopStream, at time.Duration) {
	for {
		play := s.flow.play.id
		n := s.flow.frame(at, l.buf[:])
		if n == 0 {
			break
		}
		l.active = at
		l.send(s, l.buf[:n], play, at)
	}
	s.flow.check(at)
	b, err := s.flow.report(at)
	if err != nil {
		l.engine.tell(report{stream: s, what: "make RTCP report", err: err})
	} else if b != nil {
		l.sendReport(s, b)
	}
	l.announce(s)
}

// schedule gives a stream its place among those for which something is due. What
// a packet puts off is not followed: then the stream is woken too early, once.
func (l *loop) schedule(s *loopStream) {
	at, ok := s.flow.due()
	switch {
	case !ok && s.seat == nowhere:
	case !ok:
		heap.Remove(&l.due, s.seat)
	case s.seat == nowhere:
		s.wake = at
		heap.Push(&l.due, s)
	case s.wake != at:
		s.wake = at
		heap.Fix(&l.due, s.seat)
	}
}

// dueHeap holds the streams for which something will be due, the soonest first.
type dueHeap []*loopStream

const nowhere = -1

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].wake < h[j].wake }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].seat, h[j].seat = i, j
}

// Push and Pop are heap's.
func (h *dueHeap) Push(x any) {
	s := x.(*loopStream)
	s.seat = len(*h)
	*h = append(*h, s)
}

func (h *dueHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h, s.seat = old[:len(old)-1], nowhere
	return s
}
