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

// The short slice is with the thread that runs the loop, and with no other.
func TestLoopSliceFollowsTheThread(t *testing.T) {
	runtime.LockOSThread() // for good: the thread is not to be used again
	sliceOf := func(thread int) time.Duration {
		attr, err := unix.SchedGetAttr(thread, 0)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(attr.Runtime)
	}
	here := unix.Gettid()
	usual := sliceOf(here)
	l := &loop{}
	if l.slice(here, loopSlice); sliceOf(here) == usual {
		t.Skip("this kernel does not know of slices")
	}
	l.slice(here, 0)
	if l.claim(); sliceOf(here) != loopSlice {
		t.Errorf("the loop's thread has a slice of %v", sliceOf(here))
	}
	moved := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(moved)
		if l.claim(); sliceOf(unix.Gettid()) != loopSlice {
			t.Errorf("the thread that it moved to has a slice of %v", sliceOf(unix.Gettid()))
		}
	}()
	<-moved
	if sliceOf(here) == loopSlice {
		t.Error("the thread that it left still has the short slice")
	}
}
