//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// benchChild is what is measured, in its own process.
type benchChild struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
	err  error // of Wait, after done
}

// startBenchChild starts what is measured on the processor for it; its log goes
// to the folder. What the command has as input and output is its own from then
// on, and closed here.
func startBenchChild(dir string, cmd *exec.Cmd, cores benchCores) (*benchChild, error) {
	log, err := os.Create(filepath.Join(dir, "switch.log"))
	if err != nil {
		return nil, err
	}
	s := &benchChild{cmd: cmd, log: log, done: make(chan struct{})}
	cmd.Stderr = log
	var theirs []*os.File
	for _, f := range []any{cmd.Stdin, cmd.Stdout} {
		if f, ok := f.(*os.File); ok {
			theirs = append(theirs, f)
		}
	}
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	// Ctrl-C is for us; we end what we started, and it does not outlive us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = cores.on(cmd.Start)
	for _, f := range theirs {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", cmd.Path, err), log.Close())
	}
	go func() {
		s.err = errors.Join(s.cmd.Wait(), log.Close())
		close(s.done)
	}()
	return s, nil
}

// benchSelf is this program with other arguments.
func benchSelf(args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return exec.Command(exe, args...), nil
}

// stop ends the switch as an administrator would and waits until it has
// rendered what it recorded.
func (s *benchChild) stop(ctx context.Context) error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the switch: %w", err)
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), s.kill())
	case <-time.After(benchRender):
		return errors.Join(fmt.Errorf("the switch does not end within %v", benchRender), s.kill())
	}
	if s.err != nil {
		return fmt.Errorf("switch: %w; its log ends:\n%s", s.err, s.tail())
	}
	return nil
}

// kill ends the switch if it still runs.
func (s *benchChild) kill() error {
	err := s.cmd.Process.Kill()
	<-s.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// tail is the end of the switch's log.
func (s *benchChild) tail() string {
	b, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}

// benchUsage is what a process has used.
type benchUsage struct {
	cpu          time.Duration // user and system, by the scheduler's clock
	user, system time.Duration // in ticks of 10 ms
	rss, anon    int64         // bytes; anon without files
}

// benchUsageOf reads the usage of a process.
func benchUsageOf(pid int) (benchUsage, error) {
	var u benchUsage
	var ts unix.Timespec
	// The CPU clock of another process: clock_getcpuclockid(3) makes its id so.
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return u, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
	}
	u.cpu = time.Duration(ts.Nano())
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The name in parentheses may hold anything; utime and stime are fields 14
	// and 15, the field behind the name is 3.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return u, fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	for i, to := range []*time.Duration{&u.user, &u.system} {
		n, err := strconv.ParseInt(string(fields[11+i]), 10, 64)
		if err != nil {
			return u, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
		}
		*to = time.Duration(n) * 10 * time.Millisecond
	}
	status, err := benchPairs(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for key, to := range map[string]*int64{"VmRSS": &u.rss, "RssAnon": &u.anon} {
		kb, err := strconv.ParseInt(strings.TrimSuffix(status[key], " kB"), 10, 64)
		if err != nil {
			return u, fmt.Errorf("read %s of process %d: %w", key, pid, err)
		}
		*to = kb * 1024
	}
	return u, nil
}

// benchPairs reads a file of lines "key: value"; of equal keys the first stays.
func benchPairs(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pairs := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); pairs[key] == "" {
			pairs[key] = strings.TrimSpace(value)
		}
	}
	return pairs, nil
}

// benchDrops tells, for each local address, how many datagrams the kernel threw
// away because the socket bound to it had no room.
func benchDrops() (map[netip.AddrPort]uint64, error) {
	f, err := os.Open("/proc/net/udp")
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	drops := map[netip.AddrPort]uint64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 13 || fields[0] == "sl" {
			continue
		}
		addr, port, ok := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(addr)
		p, err2 := strconv.ParseUint(port, 16, 16)
		n, err3 := strconv.ParseUint(fields[12], 10, 64)
		if !ok || len(raw) != 4 || errors.Join(err, err2, err3) != nil {
			return nil, fmt.Errorf("read /proc/net/udp: %q", lines.Text())
		}
		slices.Reverse(raw) // the kernel prints the word as a little-endian machine has it
		drops[netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw)), uint16(p))] += n
	}
	return drops, lines.Err()
}

// benchDropsOf sums up what the kernel threw away at the sockets of a bench:
// what is measured has its address to itself, with sip the socket by which it is
// ruled; the load has the others.
func benchDropsOf(system netip.Addr, sip netip.AddrPort, load []netip.Addr) (d benchKernelDrops, err error) {
	all, err := benchDrops()
	for at, n := range all {
		switch odd := at.Port()%2 == 1; {
		case at == sip:
			d.SwitchSIP += n
		case at.Addr() == system && odd:
			d.SwitchRTCP += n
		case at.Addr() == system:
			d.SwitchRTP += n
		case slices.Contains(load, at.Addr()):
			d.Load += n
		}
	}
	return d, err
}

// benchMachine describes where the bench runs.
type benchMachine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Kernel string  `json:"kernel"`
	Arch   string  `json:"arch"`
	Go     string  `json:"go"`
	Load   float64 `json:"load_before"` // of the last minute, before the bench
}

func benchThisMachine() (benchMachine, error) {
	m := benchMachine{Cores: runtime.NumCPU(), Arch: runtime.GOARCH, Go: runtime.Version()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("read the kernel's version: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	cpu, err := benchPairs("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	m.CPU = cpu["model name"]
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, err
	}
	if _, err := fmt.Sscan(string(load), &m.Load); err != nil {
		return m, fmt.Errorf("read /proc/loadavg: %w", err)
	}
	return m, nil
}
