//go:build linux && (amd64 || arm64)

package media

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Packets wait for one another only while they come so fast that it is worth it,
// and a turn that is due is not put off.
func TestLoopGathersWhatComesFast(t *testing.T) {
	l := &loop{engine: &loopEngine{epoch: time.Now()}}
	for _, c := range []struct {
		packets int // a window
		gather  bool
	}{{20, false}, {130, false}, {140, true}, {1000, true}, {20, false}} {
		l.pace(c.packets, l.window+rateWindow)
		if l.gather != c.gather {
			t.Errorf("%d packets in %v: gather %v", c.packets, rateWindow, l.gather)
		}
	}
	begun := time.Now()
	for range 100 {
		l.await(l.engine.now())
	}
	if took := time.Since(begun); took < 99*(gatherFor-shortest) {
		t.Errorf("100 turns in %v", took)
	}
	l.woke -= gatherFor
	before := l.engine.now()
	if l.await(before); l.woke != before {
		t.Error("a turn that was due waited")
	}
}

// The loop's thread is preferred, by its slice and, where this process may, by its
// nice value; no other is, be it one that the loop has left or one that was
// started by the loop's.
func TestLoopPrefersTheThreadThatRunsIt(t *testing.T) {
	runtime.LockOSThread() // for good: the thread is not to be used again
	of := func(thread int) unix.SchedAttr {
		t.Helper()
		attr, err := unix.SchedGetAttr(thread, 0)
		if err != nil {
			t.Fatal(err)
		}
		return *attr
	}
	here := unix.Gettid()
	usual := of(here)
	// What this process may is found out on another thread than the loop's.
	nice, sliced := usual.Nice, false
	tried := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(tried)
		attr := usual
		attr.Runtime = uint64(loopSlice)
		_ = unix.SchedSetAttr(0, &attr, 0)
		sliced = of(0).Runtime == attr.Runtime
		attr.Nice = loopNice
		if unix.SchedSetAttr(0, &attr, 0) == nil {
			nice = loopNice
		}
	}()
	<-tried
	if !sliced && nice == usual.Nice {
		t.Skip("this kernel knows of no slices, and this process may not change its nice value")
	}
	preferred := func(thread int) {
		t.Helper()
		if a := of(thread); a.Nice != nice || sliced && time.Duration(a.Runtime) != loopSlice {
			t.Errorf("the loop's thread has %+v", a)
		}
	}
	as := func(thread int, why string) {
		t.Helper()
		if a := of(thread); a.Nice != usual.Nice || a.Runtime != usual.Runtime {
			t.Errorf("%s: %+v instead of %+v", why, a, usual)
		}
	}
	l := &loop{}
	l.claim()
	preferred(here)
	moved, left := make(chan int), make(chan struct{})
	go func() { // this thread is a new one, or an idle one
		runtime.LockOSThread()
		l.claim()
		preferred(unix.Gettid())
		moved <- unix.Gettid()
		<-left
		l.resign()
		as(unix.Gettid(), "the loop has ended")
		close(moved)
	}()
	<-moved
	as(here, "the loop has moved on")
	close(left)
	<-moved
}
