//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// benchFlags are the flags of the bench.
type benchFlags struct {
	Calls   int     `json:"calls"`
	Seconds int     `json:"seconds"`
	Rate    float64 `json:"setups_per_second"`
	Busy    int     `json:"computing_goroutines"`
	json    string
	profile string
	floor   string
	alone   bool
	write   string
	scale   bool
	cores   benchCores
}

// runBench is the command bench: the switch in a process of its own, as serve
// runs it, under the load of N calls that are announced, queued, answered,
// bridged and recorded. This process is carrier, phones and judge: it stamps
// every packet that it sends, and afterwards looks for each of them among those
// that came out and in the recordings.
func runBench(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "switch" {
		return runBenchSwitch(args[1:], stdout, stderr)
	}
	var f benchFlags
	fs := newFlags("bench", "Measures the switch on this machine under recorded calls over loopback.", stderr)
	fs.IntVar(&f.Calls, "calls", 100, "concurrent recorded `calls`")
	fs.IntVar(&f.Seconds, "seconds", 20, "`seconds` to measure with all calls up")
	fs.Float64Var(&f.Rate, "rate", 20, "calls to set up per `second`")
	fs.StringVar(&f.json, "json", "", "`file` to write the results to, as JSON")
	fs.StringVar(&f.floor, "floor", "", "`program` made of bench/relay.c, to compare with")
	fs.IntVar(&f.Busy, "busy", 0, "`goroutines` that compute all the time in the switch's process; its CPU then says nothing")
	fs.BoolVar(&f.scale, "scale", false, "measure 20, 100, 200, 500 and 1000 calls, until one run fails")
	fs.StringVar(&f.write, "write", "", "`page` to write the results to, between their marks; a picture goes beside it")
	fs.BoolVar(&f.alone, "alone", false, "measure the switch only, no rivals")
	fs.StringVar(&f.profile, "profile", "", "`folder` to write CPU and allocation profiles of the switch to")
	if code, ok := parseFlags(fs, args, stderr); !ok {
		return code
	}
	if f.Calls < 1 || f.Calls > 2000 || f.Seconds < 1 || f.Rate <= 0 {
		fmt.Fprintln(stderr, "centralka bench: 1 to 2000 calls, at least one second and a rate above 0")
		return exitUsage
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	cores, err := benchPin()
	if err != nil {
		fmt.Fprintln(stderr, "centralka bench:", err)
		return exitFailed
	}
	f.cores = cores
	run := runBenchOnce
	if f.scale {
		run = runBenchScale
	}
	passed, err := run(ctx, f, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "centralka bench:", err)
	}
	if err != nil || !passed {
		return exitFailed
	}
	return exitOK
}

// runBenchOnce measures once and shows it.
func runBenchOnce(ctx context.Context, f benchFlags, stdout, stderr io.Writer) (passed bool, err error) {
	r, err := bench(ctx, f, stderr)
	if err != nil {
		return false, err
	}
	if err := r.print(stdout); err != nil {
		return false, err
	}
	if f.json != "" {
		if err := r.writeJSON(f.json); err != nil {
			return false, err
		}
	}
	if f.write != "" {
		kind := "table"
		if f.Busy > 0 {
			kind = "busy"
		}
		if err := benchWritePage(f.write, kind, r.markdown()); err != nil {
			return false, err
		}
	}
	return len(r.Failures) == 0, nil
}

// runBenchScale measures ever more calls and shows and draws it. A run that
// fails is the limit that was looked for; only if none passes, nothing does.
func runBenchScale(ctx context.Context, f benchFlags, stdout, stderr io.Writer) (passed bool, err error) {
	points, last, err := benchScale(ctx, f, stderr)
	if err != nil {
		return false, err
	}
	table := benchScaleTable(points)
	fmt.Fprint(stdout, table)
	if f.write != "" {
		picture := strings.TrimSuffix(f.write, filepath.Ext(f.write)) + "-scale.svg"
		if err := os.WriteFile(picture, []byte(benchScaleSVG(points)), 0o644); err != nil {
			return false, err
		}
		text := fmt.Sprintf("%s %d s each.\n\n![Processor time per packet by number of calls](%s)\n\n%s", benchWhere(&last), f.Seconds, filepath.Base(picture), table)
		if err := benchWritePage(f.write, "scale", text); err != nil {
			return false, err
		}
	}
	return points[0].Failed == "", nil
}

// bench is one run; its order is the order of the table.
func bench(ctx context.Context, f benchFlags, stderr io.Writer) (r benchResult, err error) {
	say := func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	r.Config, r.Date, r.Version = f, time.Now().UTC().Truncate(time.Second), version()
	if r.Machine, err = benchThisMachine(); err != nil {
		return r, err
	}
	if !f.alone {
		for _, v := range benchRivals(f, say) {
			res, err := benchAgainst(ctx, f, f.cores, v, say)
			if err != nil {
				return r, err
			}
			r.Rivals = append(r.Rivals, res)
		}
	}
	dir, err := os.MkdirTemp("", "centralka-bench-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	load, err := newBenchLoad()
	if err != nil {
		return r, err
	}
	stop, ran := make(chan struct{}), make(chan error, 1)
	go func() { ran <- load.run(stop) }()
	defer func() { close(stop); err = errors.Join(err, <-ran) }()

	city, err := newBenchCity(dir, f.Calls, load)
	if err != nil {
		return r, err
	}
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, city.close())
		}
	}()
	path, err := city.configure()
	if err != nil {
		return r, err
	}
	if err := city.open(); err != nil {
		return r, err
	}
	begin := []string{"serve", "--config", path}
	if f.profile != "" || f.Busy > 0 {
		begin = []string{"bench", "switch", path, f.profile, strconv.Itoa(f.Busy)}
	}
	cmd, err := benchSelf(begin...)
	if err != nil {
		return r, err
	}
	child, err := startBenchChild(dir, cmd, f.cores)
	if err != nil {
		return r, err
	}
	ended := false
	defer func() {
		if !ended {
			err = errors.Join(err, child.kill())
		}
	}()
	if err := city.ready(ctx, child); err != nil {
		return r, err
	}
	say("switch is ready; registering %d phones", f.Calls)
	if err := city.register(ctx); err != nil {
		return r, err
	}
	if err := benchPause(ctx, child, time.Second); err != nil {
		return r, err
	}
	pid := child.cmd.Process.Pid
	idle, err := benchUsageOf(pid)
	if err != nil {
		return r, err
	}

	interval := time.Duration(float64(time.Second) / f.Rate)
	say("placing %d calls, %g a second: a tone of 1 s as announcement, queue, agent's phone, bridge", f.Calls, f.Rate)
	setups, err := city.place(ctx, interval)
	if err != nil {
		return r, fmt.Errorf("place calls: %w; the switch's log ends:\n%s", err, child.tail())
	}
	for _, d := range setups {
		r.setup.add(d)
	}
	if err := benchPause(ctx, child, 2*time.Second); err != nil {
		return r, err
	}

	say("measuring %d s", f.Seconds)
	before, after, err := city.steady(ctx, child, f, &r.Drift, say)
	if err != nil {
		return r, err
	}
	load.hush()
	if err := benchPause(ctx, child, 500*time.Millisecond); err != nil {
		return r, err
	}
	r.measured(f.Calls, idle, before, after, load.picture())
	r.Setup = benchQuantilesOf(&r.setup)
	r.Packets = load.sum()
	if r.KernelDrops, err = city.drops(); err != nil {
		return r, err
	}
	talked, err := benchUsageOf(pid)
	if err != nil {
		return r, err
	}
	say("hanging up")
	if err := city.hangUp(10 * time.Millisecond); err != nil {
		return r, err
	}
	say("stopping the switch, once it has rendered %d recordings", f.Calls)
	ended = true
	if err := child.stop(ctx); err != nil {
		return r, err
	}
	r.rendered(child.cmd.ProcessState, talked)
	closed = true
	if err := city.close(); err != nil {
		return r, err
	}
	say("looking for every frame in the recordings")
	if r.Recordings, err = city.checkRecordings(); err != nil {
		return r, err
	}
	r.Violations = append(city.violations, city.unexpected...)
	r.judge()
	return r, nil
}

// steady watches the calls talk and returns the switch's usage before and
// after; drift is what it held after a tenth of the time and at the end.
func (c *benchCity) steady(ctx context.Context, child *benchChild, f benchFlags, drift *benchDrift, say func(string, ...any)) (before, after benchSample, err error) {
	pid := child.cmd.Process.Pid
	if f.profile != "" || f.Busy > 0 {
		if err := child.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			return before, after, fmt.Errorf("begin the profile: %w", err)
		}
	}
	c.load.measure(true)
	if before, err = benchSampleOf(pid); err != nil {
		return before, after, err
	}
	for s := 1; s <= f.Seconds; s++ {
		if err := benchPause(ctx, child, time.Until(before.at.Add(time.Duration(s)*time.Second))); err != nil {
			return before, after, err
		}
		if s == 1+f.Seconds/10 {
			if drift.First, err = benchHeldBy(pid); err != nil {
				return before, after, err
			}
		}
		if s%5 == 0 && s < f.Seconds && (f.Seconds <= 60 || s%60 == 0) {
			now := c.load.picture()
			say("  %d s: %d packets relayed, delay p99 %v", s, now.got, now.delay.quantile(0.99).Round(time.Microsecond))
		}
	}
	if after, err = benchSampleOf(pid); err != nil {
		return before, after, err
	}
	c.load.measure(false)
	if drift.Last, err = benchHeldBy(pid); err != nil {
		return before, after, err
	}
	if f.profile != "" || f.Busy > 0 {
		if err := child.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			return before, after, fmt.Errorf("end the profile: %w", err)
		}
	}
	return before, after, nil
}

// benchPause waits, unless the switch ends or the bench is given up.
func benchPause(ctx context.Context, child *benchChild, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-child.done:
		return fmt.Errorf("the switch ended: %w; its log ends:\n%s", child.err, child.tail())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// benchSample is a process's usage at an instant.
type benchSample struct {
	at time.Time
	benchUsage
}

func benchSampleOf(pid int) (benchSample, error) {
	u, err := benchUsageOf(pid)
	return benchSample{time.Now(), u}, err
}

// runBenchSwitch is the switch of a bench with profiles, or beside goroutines
// that compute: serve, and between two SIGUSR1 a CPU profile, then one of
// allocations, and the computing. Its arguments are the configuration, the
// profiles' folder and how many goroutines compute.
func runBenchSwitch(args []string, stdout, stderr io.Writer) int {
	busy := 0
	if len(args) == 3 {
		n, err := strconv.Atoi(args[2])
		if err != nil {
			args = nil
		}
		busy = n
	}
	if len(args) != 3 {
		fmt.Fprintln(stderr, "centralka bench switch: configuration, folder and computing goroutines are wanted")
		return exitUsage
	}
	toggles := make(chan os.Signal, 2)
	signal.Notify(toggles, syscall.SIGUSR1)
	defer signal.Stop(toggles)
	done := make(chan struct{})
	profiled := make(chan error, 1)
	go func() { profiled <- benchProfile(args[1], busy, toggles, done) }()
	code := runServe([]string{"--config", args[0]}, stdout, stderr)
	close(done)
	if err := <-profiled; err != nil {
		fmt.Fprintln(stderr, "centralka bench switch:", err)
		return exitFailed
	}
	return code
}

// benchProfile profiles, and computes, from one signal to the next.
func benchProfile(dir string, busy int, toggles <-chan os.Signal, done <-chan struct{}) (err error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	select {
	case <-toggles:
	case <-done:
		return nil
	}
	enough := make(chan struct{})
	var computing sync.WaitGroup
	for range busy {
		computing.Go(func() { benchCompute(enough) })
	}
	defer computing.Wait()
	defer close(enough)
	if dir == "" {
		select {
		case <-toggles:
		case <-done:
		}
		return nil
	}
	cpu, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	select {
	case <-toggles:
	case <-done:
	}
	pprof.StopCPUProfile()
	allocs, err := os.Create(filepath.Join(dir, "allocs.pprof"))
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
}

// benchCompute computes until it is enough.
func benchCompute(enough <-chan struct{}) {
	for x := uint64(1); ; {
		select {
		case <-enough:
			return
		default:
		}
		for i := range uint64(100_000) {
			x = x*6364136223846793005 + i
		}
	}
}
