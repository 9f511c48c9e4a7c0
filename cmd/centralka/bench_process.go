//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

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

// benchDrops sums up, for each address, the datagrams that the kernel threw
// away because a socket bound to it had no room. Sockets with odd ports of
// idle, RTCP that nobody reads, are left out.
func benchDrops(idle []netip.Addr) (map[netip.Addr]uint64, error) {
	f, err := os.Open("/proc/net/udp")
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	drops := map[netip.Addr]uint64{}
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
		slices.Reverse(raw) // the kernel prints the word as the machine has it
		if a := netip.AddrFrom4([4]byte(raw)); p%2 == 0 || !slices.Contains(idle, a) {
			drops[a] += n
		}
	}
	return drops, lines.Err()
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
