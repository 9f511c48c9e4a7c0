//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"
	"text/tabwriter"
	"time"
)

// benchResult is what a run has found. Durations in JSON are nanoseconds or, by
// their names, microseconds.
type benchResult struct {
	Date    time.Time    `json:"date"`
	Version string       `json:"version"`
	Machine benchMachine `json:"machine"`
	Config  benchFlags   `json:"config"`

	benchFigures
	Setup      benchQuantiles  `json:"setup_us"`
	RenderCPU  time.Duration   `json:"render_cpu_ns"` // from the first BYE to the switch's end
	PeakRSS    int64           `json:"rss_peak_bytes"`
	Recordings benchRecordings `json:"recordings"`
	Violations []string        `json:"sip_complaints"`
	Failures   []string        `json:"failures"`

	Rivals []benchRivalResult `json:"rivals"`
	Drift  benchDrift         `json:"drift"`

	setup benchTimes
}

// benchFigures are what is measured of every system alike.
type benchFigures struct {
	Measured         time.Duration    `json:"measured_ns"`
	Relayed          uint64           `json:"relayed"` // packets in the measured time, both directions
	PacketsPerSecond float64          `json:"packets_per_second"`
	CPUPerPacket     float64          `json:"cpu_us_per_packet"` // of what is measured alone, recording included
	CPU              float64          `json:"cpu_cores"`
	SystemShare      float64          `json:"cpu_system_share"`
	Delay            benchQuantiles   `json:"delay_us"`
	Lateness         benchQuantiles   `json:"load_lateness_us"`
	RSSIdle          int64            `json:"rss_idle_bytes"`
	RSS              int64            `json:"rss_bytes"`
	RSSPerCall       int64            `json:"rss_per_call_bytes"`
	Packets          benchCounts      `json:"packets"` // of the whole run
	KernelDrops      benchKernelDrops `json:"kernel_drops"`
	// LoadHeldUp is how late the load was at worst, in the whole run.
	LoadHeldUp time.Duration `json:"load_held_up_ns"`
}

// benchKernelDrops counts datagrams for which a socket had no room.
type benchKernelDrops struct {
	SwitchSIP  uint64 `json:"switch_sip"`
	SwitchRTP  uint64 `json:"switch_rtp"`
	SwitchRTCP uint64 `json:"switch_rtcp"`
	Load       uint64 `json:"load"`
}

// benchQuantiles are in microseconds.
type benchQuantiles struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func benchQuantilesOf(h *benchTimes) benchQuantiles {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return benchQuantiles{us(h.quantile(0.5)), us(h.quantile(0.99)), us(h.quantile(0.999)), us(h.max)}
}

// measured fills in what the measured time has shown.
func (r *benchFigures) measured(calls int, idle benchUsage, before, after benchSample, p benchPicture) {
	cpu := after.cpu - before.cpu
	r.Measured = after.at.Sub(before.at)
	r.Relayed = p.got
	r.PacketsPerSecond = float64(p.got) / r.Measured.Seconds()
	r.CPUPerPacket = float64(cpu) / float64(time.Microsecond) / float64(max(p.got, 1))
	r.CPU = cpu.Seconds() / r.Measured.Seconds()
	if all := after.user + after.system - before.user - before.system; all > 0 {
		r.SystemShare = float64(after.system-before.system) / float64(all)
	}
	r.Delay, r.Lateness = benchQuantilesOf(&p.delay), benchQuantilesOf(&p.lateness)
	r.LoadHeldUp = p.worst
	r.RSSIdle, r.RSS = idle.rss, after.rss
	r.RSSPerCall = (after.rss - idle.rss) / int64(calls)
}

// rendered fills in what the switch used from the first BYE to its end.
func (r *benchResult) rendered(s *os.ProcessState, talked benchUsage) {
	r.RenderCPU = s.UserTime() + s.SystemTime() - talked.cpu
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		r.PeakRSS = u.Maxrss * 1024
	}
}

// judge decides what makes the run fail.
func (r *benchResult) judge() {
	fail := func(bad bool, format string, args ...any) {
		if bad {
			r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
		}
	}
	p := r.Packets
	fail(p.Received == 0, "no packet was relayed")
	fail(p.Lost > 0, "%d packets were lost, of them %d by the kernel at the load's sockets", p.Lost, r.KernelDrops.Load)
	fail(p.Altered > 0, "%d packets were altered", p.Altered)
	fail(p.Crossed > 0, "%d packets reached another call", p.Crossed)
	fail(p.Duplicated > 0, "%d packets came twice", p.Duplicated)
	fail(r.Recordings.Bad > 0, "%d of %d recordings are missing or wrong", r.Recordings.Bad, r.Config.Calls)
	leaks := r.Drift.leaks()
	fail(leaks != "", "the switch's %s", leaks)
	fail(len(r.Failures) > 0 && r.LoadHeldUp > benchLate,
		"but this process was held up for %v, so that says little about the switch: repeat it on a machine that is less busy", r.LoadHeldUp.Round(time.Millisecond))
	r.Failures = append(r.Failures, r.Recordings.problems[:min(10, len(r.Recordings.problems))]...)
}

func (r *benchResult) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	quantiles := func(q benchQuantiles) string {
		return fmt.Sprintf("p50 %s, p99 %s, p99.9 %s, max %s", benchMicros(q.P50), benchMicros(q.P99), benchMicros(q.P999), benchMicros(q.Max))
	}
	m, p, rec := r.Machine, r.Packets, r.Recordings
	fmt.Fprintln(tw)
	row("machine", "%d cores, shared with the load; %s; load average before %.2f", m.Cores, m.CPU, m.Load)
	row("", "%s %s, %s, centralka %s", m.Kernel, m.Arch, m.Go, r.Version)
	row("load", "%d recorded calls for %v, G.711 A-law, 20 ms, both ways; announcement: a tone of 1 s", r.Config.Calls, r.Measured.Round(time.Second))
	row("packets relayed", "%.0f a second", r.PacketsPerSecond)
	row("CPU per relayed packet", "%.1f µs, recording included; %.2f cores, %.0f %% of it in the kernel", r.CPUPerPacket, r.CPU, 100*r.SystemShare)
	row("added delay", "%s", quantiles(r.Delay))
	row("INVITE to 200", "%s at %g calls a second", quantiles(r.Setup), r.Config.Rate)
	row("memory per call", "%d KB (RSS %.1f MB with calls, %.1f MB before; peak %.1f MB)", r.RSSPerCall/1024, benchMB(r.RSS), benchMB(r.RSSIdle), benchMB(r.PeakRSS))
	from, to := r.Drift.First, r.Drift.Last
	row("held while measuring", "RSS %.1f -> %.1f MB, %d -> %d files, %d -> %d threads", benchMB(from.RSS), benchMB(to.RSS), from.Files, to.Files, from.Threads, to.Threads)
	row("packets, whole run", "%d sent, %d received: %d lost, %d altered, %d crossed, %d twice", p.Sent, p.Received, p.Lost, p.Altered, p.Crossed, p.Duplicated)
	row("", "%d reordered, %d renumbered, %d refused by our own sockets", p.Reordered, p.Renumbered, p.Unsent)
	d := r.KernelDrops
	row("dropped by the kernel", "at the switch's sockets %d of SIP, %d of RTP, %d of RTCP; at the load's %d", d.SwitchSIP, d.SwitchRTP, d.SwitchRTCP, d.Load)
	row("recordings", "%d of %d right: %d of %d frames found, %d astray, %d dropped", rec.OK, r.Config.Calls, rec.Found, rec.Frames, rec.Strange, rec.Dropped)
	row("", "%d frames trimmed by steering; length off by %v at most, frames off their grid by %v at most", rec.Trimmed, rec.Length.Round(100*time.Microsecond), rec.Off.Round(100*time.Microsecond))
	row("hang-up and rendering", "%.1f s of CPU for %.1f MB of WAV", r.RenderCPU.Seconds(), benchMB(rec.Bytes))
	row("the load's own lateness", "%s; in the whole run %s", quantiles(r.Lateness), benchMicros(float64(r.LoadHeldUp.Microseconds())))
	for _, v := range r.Rivals {
		row(v.Name, "%.1f µs per packet; delay %s; %d KB a call", v.CPUPerPacket, quantiles(v.Delay), v.RSSPerCall/1024)
		row("", "%d of %d packets lost, %d altered, %d crossed, %d twice; %d found recorded", v.Packets.Lost, v.Packets.Sent, v.Packets.Altered, v.Packets.Crossed, v.Packets.Duplicated, v.Recorded)
		row("", "CPU per packet of centralka to it: %.2f", r.CPUPerPacket/v.CPUPerPacket)
	}
	for i, v := range r.Violations {
		if i == 10 {
			row("", "… and %d more", len(r.Violations)-i)
			break
		}
		row("the peers complain", "%s", v)
	}
	for _, f := range r.Failures {
		row("FAILED", "%s", f)
	}
	if len(r.Failures) == 0 {
		row("passed", "no packet lost, altered or crossed; every call recorded")
	}
	return tw.Flush()
}

// benchMicros writes microseconds as people read them.
func benchMicros(us float64) string {
	switch {
	case us < 1000:
		return fmt.Sprintf("%.0f µs", us)
	case us < 100_000:
		return fmt.Sprintf("%.1f ms", us/1000)
	}
	return fmt.Sprintf("%.0f ms", us/1000)
}

func benchMB(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func (r *benchResult) writeJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
