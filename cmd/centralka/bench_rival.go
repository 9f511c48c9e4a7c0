//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// benchRival is another relay under the very same load: the same packets, sent
// by the same loop, judged by the same tally, on the same processors.
type benchRival struct {
	name  string
	begin func(r *benchRun) (*exec.Cmd, error)
	// join makes the rival relay between the two parties of each call; to is
	// where each of them then speaks to. It may be called once.
	join func(ctx context.Context, r *benchRun) (to [][2]netip.AddrPort, err error)
	// part ends the calls; nil where the rival knows no calls.
	part func(ctx context.Context, r *benchRun) error
	// recorded is where the rival writes what it records; empty if it does not.
	recorded string
}

// benchRun is one run of one rival.
type benchRun struct {
	dir     string
	at      netip.Addr // the rival's
	control netip.AddrPort
	parties [][2]*benchParty
	child   *benchChild
	input   *os.File // of the rival
	output  *bufio.Reader
}

// benchRivalResult is what a rival has shown. Recorded counts the packets that
// were found in what it recorded, -1 if it records nothing.
type benchRivalResult struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	benchFigures
	Recorded int64 `json:"recorded"`
}

// benchAgainst lets a rival relay f.Calls calls for f.Seconds.
func benchAgainst(ctx context.Context, f benchFlags, cores benchCores, v benchRival, say func(string, ...any)) (res benchRivalResult, err error) {
	dir, err := os.MkdirTemp("", "centralka-bench-")
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	load, err := newBenchLoad()
	if err != nil {
		return res, err
	}
	stop, ran := make(chan struct{}), make(chan error, 1)
	go func() { ran <- load.run(stop) }()
	defer func() { close(stop); err = errors.Join(err, <-ran) }()

	addrs := benchAddrs()
	r := &benchRun{dir: dir, at: addrs[0]}
	if r.control, err = benchFreeUDP(r.at); err != nil {
		return res, err
	}
	for range f.Calls {
		var pair [2]*benchParty
		for side := range pair {
			s, err := load.listen(netip.AddrPortFrom(addrs[1+side], 0))
			if err != nil {
				return res, err
			}
			pair[side] = s.(*benchParty)
		}
		r.parties = append(r.parties, pair)
	}
	cmd, err := v.begin(r)
	if err != nil {
		return res, err
	}
	in, out, err := benchPipes(cmd)
	if err != nil {
		return res, err
	}
	r.input, r.output = in, bufio.NewReader(out)
	defer func() { err = errors.Join(err, in.Close(), out.Close()) }()
	if r.child, err = startBenchChild(dir, cmd, cores); err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, r.child.kill()) }()
	say("%s: joining %d calls", v.name, f.Calls)
	pid := r.child.cmd.Process.Pid
	if err := benchPause(ctx, r.child, 300*time.Millisecond); err != nil {
		return res, err
	}
	idle, err := benchUsageOf(pid)
	if err != nil {
		return res, err
	}
	to, err := v.join(ctx, r)
	if err != nil {
		return res, fmt.Errorf("%s: join calls: %w; its log ends:\n%s", v.name, err, r.child.tail())
	}
	for i, pair := range r.parties {
		load.converse(i, pair, to[i])
	}
	if err := benchPause(ctx, r.child, 3*time.Second); err != nil {
		return res, err
	}
	say("%s: measuring %d s", v.name, f.Seconds)
	load.measure(true)
	before, err := benchSampleOf(pid)
	if err != nil {
		return res, err
	}
	if err := benchPause(ctx, r.child, time.Duration(f.Seconds)*time.Second); err != nil {
		return res, err
	}
	after, err := benchSampleOf(pid)
	if err != nil {
		return res, err
	}
	load.measure(false)
	load.hush()
	if err := benchPause(ctx, r.child, 500*time.Millisecond); err != nil {
		return res, err
	}
	res.Name = v.name
	res.measured(f.Calls, idle, before, after, load.picture())
	res.Packets = load.sum()
	if res.KernelDrops, err = benchDropsOf(r.at, r.control, addrs[1:]); err != nil {
		return res, err
	}
	res.Recorded = -1
	if v.part != nil {
		if err := v.part(ctx, r); err != nil {
			return res, err
		}
	}
	if v.recorded != "" {
		if res.Recorded, err = benchStampsIn(filepath.Join(dir, v.recorded)); err != nil {
			return res, err
		}
	}
	return res, nil
}

// benchPipes connects a command's input and output with this process.
func benchPipes(cmd *exec.Cmd) (in, out *os.File, err error) {
	theirs, in, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	out, ours, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close(), in.Close())
	}
	cmd.Stdin, cmd.Stdout = theirs, ours
	return in, out, nil
}

// benchStampsIn counts the stamped packets in all files of a folder, each as
// often as it lies there.
func benchStampsIn(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for {
			next := bytes.Index(b, benchMagic[:])
			if next < 0 || next+benchCore > len(b) {
				return nil
			}
			b = b[next:]
			if _, ok := readBenchStamp(b[:benchCore]); ok {
				n++
				b = b[benchCore-1:]
			}
			b = b[1:]
		}
	})
	return n, err
}

// benchFloor is the relay of bench/relay.c, which does nothing but relay.
func benchFloor(program string) benchRival {
	return benchRival{
		name: "C relay, no recording",
		begin: func(r *benchRun) (*exec.Cmd, error) {
			return exec.Command(program, r.at.String()), nil
		},
		join: func(_ context.Context, r *benchRun) (to [][2]netip.AddrPort, err error) {
			for _, pair := range r.parties {
				a, b := pair[0].addr, pair[1].addr
				if _, err := fmt.Fprintf(r.input, "%v %d %v %d\n", a.Addr(), a.Port(), b.Addr(), b.Port()); err != nil {
					return nil, err
				}
				var ports [2]uint16
				if _, err := fmt.Fscanln(r.output, &ports[0], &ports[1]); err != nil {
					return nil, fmt.Errorf("read ports: %w", err)
				}
				to = append(to, [2]netip.AddrPort{netip.AddrPortFrom(r.at, ports[0]), netip.AddrPortFrom(r.at, ports[1])})
			}
			if _, err := fmt.Fprintln(r.input); err != nil {
				return nil, err
			}
			line, err := r.output.ReadString('\n')
			if err == nil && strings.TrimSpace(line) != "ready" {
				err = fmt.Errorf("it says %q", line)
			}
			return to, err
		},
	}
}

// benchNG is rtpengine in user space, recording to pcap files, driven by its ng
// protocol.
func benchNG(program string) benchRival {
	calls := func(ctx context.Context, r *benchRun, do func(ng *benchNGClient, i int) error) error {
		ng, err := dialBenchNG(ctx, r.control)
		if err != nil {
			return err
		}
		for i := range r.parties {
			if err := do(ng, i); err != nil {
				return errors.Join(fmt.Errorf("call %d: %w", i, err), ng.conn.Close())
			}
		}
		return ng.conn.Close()
	}
	return benchRival{
		name:     "rtpengine, user space, recording to pcap",
		recorded: "recorded",
		begin: func(r *benchRun) (*exec.Cmd, error) {
			to := filepath.Join(r.dir, "recorded")
			if err := os.Mkdir(to, 0o700); err != nil {
				return nil, err
			}
			conf := filepath.Join(r.dir, "rtpengine.conf")
			if err := os.WriteFile(conf, []byte("[rtpengine]\n"), 0o600); err != nil {
				return nil, err
			}
			return exec.Command(program, "--config-file="+conf, "--foreground", "--log-stderr", "--log-level=4", "--table=-1",
				"--interface="+r.at.String(), "--listen-ng="+r.control.String(), "--port-min=30000", "--port-max=49999",
				"--recording-dir="+to, "--recording-method=pcap", "--recording-format=raw", "--num-threads=1", "--pidfile="+filepath.Join(r.dir, "pid")), nil
		},
		join: func(ctx context.Context, r *benchRun) (to [][2]netip.AddrPort, err error) {
			to = make([][2]netip.AddrPort, len(r.parties))
			return to, calls(ctx, r, func(ng *benchNGClient, i int) error {
				// What one party is told is where it speaks to: the answer to the
				// offer goes to the office, that to the answer to the citizen.
				office, err := ng.describe("offer", i, r.parties[i][0].addr)
				if err != nil {
					return err
				}
				citizen, err := ng.describe("answer", i, r.parties[i][1].addr)
				to[i] = [2]netip.AddrPort{citizen, office}
				return err
			})
		},
		part: func(ctx context.Context, r *benchRun) error {
			return calls(ctx, r, func(ng *benchNGClient, i int) error { return ng.end(i) })
		},
	}
}

// benchRivals are those that are to be had; for the scale picture the floor is
// enough.
func benchRivals(f benchFlags, say func(string, ...any)) (rivals []benchRival) {
	if f.floor == "" {
		say("no C relay to compare with: make bench compiles it (--floor)")
	} else {
		rivals = append(rivals, benchFloor(f.floor))
	}
	if f.scale {
		return rivals
	}
	if program, err := exec.LookPath("rtpengine"); err == nil {
		rivals = append(rivals, benchNG(program))
	} else {
		say("rtpengine is not installed (Debian: rtpengine-daemon), so it is not compared with")
	}
	return rivals
}

// benchNGClient speaks rtpengine's ng protocol: a cookie, a space and a bencoded
// dictionary in a datagram each way.
type benchNGClient struct {
	conn *net.UDPConn
	next int
}

func dialBenchNG(ctx context.Context, to netip.AddrPort) (*benchNGClient, error) {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	ng := &benchNGClient{conn: c}
	for end := time.Now().Add(benchReady); ; {
		if _, err = ng.ask("ping"); err == nil {
			return ng, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("rtpengine is not ready: %w", err), c.Close())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ask sends a command with pairs of keys and values and returns the answer's
// dictionary, of which only strings are read.
func (ng *benchNGClient) ask(command string, pairs ...string) (map[string]string, error) {
	ng.next++
	cookie := fmt.Sprintf("bench%d", ng.next)
	b := []byte(cookie + " d")
	for _, s := range append([]string{"command", command}, pairs...) {
		b = fmt.Appendf(b, "%d:%s", len(s), s)
	}
	b = append(b, 'e')
	if err := ng.conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := ng.conn.Write(b); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := ng.conn.Read(buf)
		if err != nil {
			return nil, err
		}
		body, ours := bytes.CutPrefix(buf[:n], []byte(cookie+" "))
		if !ours {
			continue // to what we gave up
		}
		answer := benchStringsOf(body)
		if r := answer["result"]; r != "ok" && r != "pong" {
			return nil, fmt.Errorf("%s: rtpengine says %q: %s", command, r, answer["error-reason"])
		}
		return answer, nil
	}
}

// describe tells rtpengine of a party and returns where the other party is to
// speak to.
func (ng *benchNGClient) describe(command string, call int, party netip.AddrPort) (netip.AddrPort, error) {
	sdp := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %v\r\ns=-\r\nc=IN IP4 %v\r\nt=0 0\r\nm=audio %d RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=ptime:20\r\na=sendrecv\r\n",
		party.Addr(), party.Addr(), party.Port())
	pairs := []string{"call-id", fmt.Sprintf("bench-%d", call), "from-tag", "citizen", "sdp", sdp, "ICE", "remove", "record call", "yes"}
	if command == "answer" {
		pairs = append(pairs, "to-tag", "office")
	}
	answer, err := ng.ask(command, pairs...)
	if err != nil {
		return netip.AddrPort{}, err
	}
	host, port := "", 0
	for line := range strings.Lines(answer["sdp"]) {
		if s, ok := strings.CutPrefix(line, "c=IN IP4 "); ok {
			host = strings.TrimSpace(s)
		}
		if s, ok := strings.CutPrefix(line, "m=audio "); ok {
			if _, err := fmt.Sscan(s, &port); err != nil {
				return netip.AddrPort{}, fmt.Errorf("read %q: %w", line, err)
			}
		}
	}
	return netip.ParseAddrPort(fmt.Sprintf("%s:%d", host, port))
}

func (ng *benchNGClient) end(call int) error {
	_, err := ng.ask("delete", "call-id", fmt.Sprintf("bench-%d", call), "from-tag", "citizen")
	return err
}

// benchStringsOf reads the strings of a bencoded dictionary, those of what is
// nested in it too, as long as it is understood.
func benchStringsOf(b []byte) map[string]string {
	all := map[string]string{}
	key, keyed := "", false
	for len(b) > 0 {
		switch c := b[0]; {
		case c == 'd' || c == 'l' || c == 'e':
			b, keyed = b[1:], false
		case c == 'i':
			_, rest, _ := bytes.Cut(b, []byte("e"))
			b, keyed = rest, false
		default:
			n := 0
			length, rest, _ := bytes.Cut(b, []byte(":"))
			if _, err := fmt.Sscan(string(length), &n); err != nil || n < 0 || n > len(rest) {
				return all
			}
			if s := string(rest[:n]); keyed {
				all[key], keyed = s, false
			} else {
				key, keyed = s, true
			}
			b = rest[n:]
		}
	}
	return all
}
