//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// benchCores says which processors the two sides of a bench run on: the load on
// one, whatever is measured on another, each alone there, so that all systems
// are measured alike and none takes the load's time.
type benchCores struct {
	Load   int  `json:"load"`
	System int  `json:"system"`
	shared bool // there is only one, or nobody asked: everything runs everywhere
}

// benchPin chooses two processors and binds this process to one of them. Where
// this process may use only one, nothing is bound.
func benchPin() (benchCores, error) {
	benchPreferred()
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return benchCores{}, fmt.Errorf("ask which processors may be used: %w", err)
	}
	var found []int
	for cpu := 0; len(found) < 2 && cpu < 8*len(may)*8; cpu++ {
		if may.IsSet(cpu) {
			found = append(found, cpu)
		}
	}
	if len(found) < 2 {
		return benchCores{shared: true}, nil
	}
	c := benchCores{Load: found[0], System: found[1]}
	return c, benchBind(c.Load)
}

// benchNice is the niceness of everything that takes part in a bench, if the
// system permits it (root): what else runs on the machine then holds it up less,
// whatever is measured. Processes of a session share their niceness as a group
// where the kernel groups them.
const benchNice = "-15"

// benchPreferred sets it; where it may not, the bench goes on without.
func benchPreferred() {
	_ = os.WriteFile("/proc/self/autogroup", []byte(benchNice), 0)
}

// benchBind binds all threads of this process to a processor. A new thread
// inherits that from the one that made it, so once no thread is new, all are
// bound.
func benchBind(cpu int) error {
	var only unix.CPUSet
	only.Set(cpu)
	bound := map[string]bool{}
	for again := true; again; {
		again = false
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || bound[t.Name()] {
				continue
			}
			if err := unix.SchedSetaffinity(tid, &only); err != nil && err != unix.ESRCH {
				return fmt.Errorf("bind thread %d to processor %d: %w", tid, cpu, err)
			}
			bound[t.Name()], again = true, true
		}
	}
	runtime.GOMAXPROCS(2) // the load's thread, and SIP
	return nil
}

// on calls start, which begins a process, so that it inherits the processor of
// what is measured.
func (c benchCores) on(start func() error) error {
	if c.shared {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var only, back unix.CPUSet
	only.Set(c.System)
	back.Set(c.Load)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("bind to processor %d: %w", c.System, err)
	}
	err := start()
	if back := unix.SchedSetaffinity(0, &back); err == nil && back != nil {
		return fmt.Errorf("bind to processor %d: %w", c.Load, back)
	}
	return err
}

// benchUrgent lets the calling thread, which is the load's, run before all
// others of its processor, if the system permits it: it is what measures. What
// it starts does not inherit that.
func benchUrgent() error {
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}
