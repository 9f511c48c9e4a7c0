//go:build linux && (amd64 || arm64)

package media

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// peersVariable makes the test binary the peers of BenchmarkRelay instead of
// running tests.
const peersVariable = "CENTRALKA_MEDIA_PEERS"

func TestMain(m *testing.M) {
	if os.Getenv(peersVariable) == "" {
		os.Exit(m.Run())
	}
	if err := playPeers(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// peersTask is what the peers are told, on one line of JSON.
type peersTask struct {
	Engine  netip.Addr
	Calls   [][2]uint16 // ports of both legs
	Warm    time.Duration
	Measure time.Duration
}

// peersResult is what they saw of the packets sent while measuring; delays are
// from just before the sending call until the kernel had the packet for the
// other peer, in microseconds.
type peersResult struct {
	Sent, Heard         int
	P50, P99, P999, Max float64
}

const (
	stampAt   = rtpHeader      // nanoseconds of the wall clock
	callAt    = rtpHeader + 8  // call, to see that nothing is crossed
	measureAt = rtpHeader + 12 // 1: counts
)

// playPeers speaks for all carriers (first socket) and all phones (second
// socket): each leg 50 packets a second, spread evenly. It says which addresses
// it has, is told the task, says when measuring begins and ends, and reports.
func playPeers(in io.Reader, out io.Writer) error {
	var socks [2]udpSocket
	var addrs [2]netip.AddrPort
	for i := range socks {
		var err error
		if socks[i], err = openUDP(netip.AddrPortFrom(loopback(byte(10+i)), 0)); err != nil {
			return err
		}
		// The peers share the machine with others: they must not lose anything.
		if err := unix.SetsockoptInt(socks[i].fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(socks[i].fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return err
		}
		sa, err := unix.Getsockname(socks[i].fd)
		if err != nil {
			return err
		}
		sa4 := sa.(*unix.SockaddrInet4)
		addrs[i] = netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), uint16(sa4.Port))
	}
	enc, dec := json.NewEncoder(out), json.NewDecoder(in)
	if err := enc.Encode(addrs); err != nil {
		return err
	}
	var task peersTask
	if err := dec.Decode(&task); err != nil {
		return err
	}
	var ears sync.WaitGroup
	var delays [2][]float64
	var errs [2]error
	ctx, stop := context.WithCancel(context.Background())
	for i := range socks {
		ears.Go(func() { delays[i], errs[i] = hearPeers(ctx, socks[i], task) })
	}
	sent := speakPeers(socks, task, func(what string) error { return enc.Encode(what) })
	time.Sleep(300 * time.Millisecond) // what is on its way
	stop()
	ears.Wait()
	all := slices.Concat(delays[0], delays[1])
	if err := errors.Join(errs[:]...); err != nil || len(all) == 0 {
		return fmt.Errorf("heard %d: %w", len(all), err)
	}
	slices.Sort(all)
	at := func(q float64) float64 { return all[min(int(q*float64(len(all))), len(all)-1)] }
	return enc.Encode(peersResult{Sent: sent, Heard: len(all), P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: all[len(all)-1]})
}

// speakPeers sends until the task is over and returns how many packets were
// sent while measuring.
func speakPeers(socks [2]udpSocket, task peersTask, say func(string) error) (sent int) {
	runtime.LockOSThread()
	type mouth struct {
		sock udpSocket
		to   sockaddr
		b    []byte
	}
	var mouths []mouth
	for n, ports := range task.Calls {
		for side, port := range ports {
			m := mouth{sock: socks[side], b: voicePacket(0, 0, uint32(2*n+side))}
			m.to.set(netip.AddrPortFrom(task.Engine, port), unix.AF_INET)
			binary.BigEndian.PutUint32(m.b[callAt:], uint32(n))
			mouths = append(mouths, m)
		}
	}
	began := time.Now()
	measuring := false
	for n := 0; ; n++ {
		due := time.Duration(n) * FrameTime / time.Duration(len(mouths))
		if wait := due - time.Since(began); wait > 0 {
			ts := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&ts, nil)
		}
		if due >= task.Warm && !measuring {
			measuring = true
			_ = say("begin")
		}
		if due >= task.Warm+task.Measure {
			_ = say("end")
			return sent
		}
		m, turn := &mouths[n%len(mouths)], n/len(mouths)
		binary.BigEndian.PutUint16(m.b[2:], uint16(turn))
		binary.BigEndian.PutUint32(m.b[4:], uint32(turn)*FrameSamples)
		m.b[measureAt] = 0
		if measuring {
			m.b[measureAt] = 1
			sent++
		}
		binary.LittleEndian.PutUint64(m.b[stampAt:], uint64(time.Now().UnixNano()))
		m.sock.send(m.b, &m.to)
	}
}

// hearPeers returns the delays of what one side got.
func hearPeers(ctx context.Context, sock udpSocket, task peersTask) (delays []float64, err error) {
	runtime.LockOSThread()
	b, oob := make([]byte, 2048), make([]byte, 128)
	calls := uint32(len(task.Calls))
	for {
		n, oobn, _, _, err := unix.Recvmsg(sock.fd, b, oob, 0)
		if errors.Is(err, unix.EAGAIN) {
			if ctx.Err() != nil {
				return delays, nil
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(sock.fd), Events: unix.POLLIN}}, 100)
			continue
		}
		if err != nil || n != rtpHeader+FrameSamples || binary.BigEndian.Uint32(b[callAt:]) >= calls {
			return nil, fmt.Errorf("%d bytes, %w", n, err)
		}
		if b[measureAt] != 1 {
			continue
		}
		control, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(control) != 1 {
			return nil, fmt.Errorf("control message: %w", err)
		}
		d := control[0].Data
		got := int64(binary.NativeEndian.Uint64(d[0:]))*1e9 + int64(binary.NativeEndian.Uint64(d[8:]))
		delays = append(delays, float64(got-int64(binary.LittleEndian.Uint64(b[stampAt:])))/1e3)
	}
}

// engineKinds are the engines that are measured against each other.
var engineKinds = []struct {
	name  string
	build newEngine
}{{"portable", NewPortable}, {"loop", buildLoop(1)}}

// BenchmarkRelay relays calls between peers in another process for three
// seconds and reports the processor time of this process, user and system, per
// packet relayed; the delay that relaying added; allocations per packet, which
// are those of the reports, one in 250 packets and some 20 each. With "busy" two goroutines of this process compute all the time, so that only the
// delay means something. One iteration is one run; -benchtime=1x is enough.
func BenchmarkRelay(b *testing.B) {
	for _, load := range []struct {
		name  string
		calls int
		busy  int
	}{{"20", 20, 0}, {"100", 100, 0}, {"200", 200, 0}, {"100busy2", 100, 2}} {
		for _, kind := range engineKinds {
			b.Run(load.name+"/"+kind.name, func(b *testing.B) {
				for b.Loop() {
					measureRelay(b, kind.build, load.calls, load.busy)
				}
			})
		}
	}
}

func measureRelay(b *testing.B, build newEngine, calls, busy int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), peersVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	outPipe, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	answers := json.NewDecoder(bufio.NewReader(outPipe))
	hear := func(v any) {
		b.Helper()
		if err := answers.Decode(v); err != nil {
			b.Fatalf("peers: %v, %v", err, cmd.Wait())
		}
	}
	var peers [2]netip.AddrPort
	hear(&peers)

	engine, err := build(PortableConfig{Addr: loopback(1), PortMin: firstPort, PortMax: firstPort + 9999, DSCP: 46})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := running(ctx, engine)
	task := peersTask{Engine: loopback(1), Warm: time.Second, Measure: 3 * time.Second}
	for range calls {
		var legs [2]Stream
		var ports [2]uint16
		for side := range legs {
			if legs[side], err = engine.Open(StreamConfig{}); err != nil {
				b.Fatal(err)
			}
			legs[side].Configure(Params{Remote: peers[side], Codec: PCMA, PayloadType: 8, Direction: SendRecv})
			ports[side] = legs[side].LocalPort()
		}
		Bridge(legs[0], legs[1])
		task.Calls = append(task.Calls, ports)
	}
	stop := make(chan struct{})
	var spinners sync.WaitGroup
	for range busy {
		spinners.Go(func() {
			for x := 1; ; x++ {
				select {
				case <-stop:
					return
				default:
				}
				for y := range 10000 {
					x ^= y * x
				}
			}
		})
	}
	if err := json.NewEncoder(in).Encode(task); err != nil {
		b.Fatal(err)
	}
	var word string
	hear(&word)
	cpu, allocs, sent := cpuTime(b), mallocs(), engine.Stats().Sent
	hear(&word)
	cpu, sent, allocs = cpuTime(b)-cpu, engine.Stats().Sent-sent, mallocs()-allocs
	close(stop)
	spinners.Wait()
	var r peersResult
	hear(&r)
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cpu)/1e3/float64(sent), "cpu-µs/packet")
	b.ReportMetric(r.P50, "p50-µs")
	b.ReportMetric(r.P99, "p99-µs")
	b.ReportMetric(r.P999, "p99.9-µs")
	b.ReportMetric(r.Max, "max-µs")
	b.ReportMetric(float64(allocs)/float64(sent), "mallocs/packet")
	b.ReportMetric(float64(r.Sent-r.Heard), "lost")
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what this process has used so far, user and system.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
