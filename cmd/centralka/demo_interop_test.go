//go:build interop

package main

import (
	"bytes"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"centralka/pbx/pbxtest"
)

// TestDemoOnce runs the demo as make demo does, over real sockets, on a machine
// where the usual ports are taken. Everything expected must have happened, within
// 40 s on a machine that has time for it: 34 s are calls, which nothing
// stretches, the rest is computing.
func TestDemoOnce(t *testing.T) {
	hosts := []netip.Addr{switchHost, carrierHost}
	for _, h := range phoneHosts {
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		if s, err := pbxtest.ListenUDP(netip.AddrPortFrom(h, sipPort)); err == nil { // else somebody has it already
			defer s.Close()
		}
	}
	if ln, err := net.Listen("tcp", "127.0.0.1:8082"); err == nil {
		defer ln.Close()
	}
	out := t.TempDir()
	var stdout, stderr bytes.Buffer
	began := time.Now()
	code := runDemo([]string{"--once", "--dir", t.TempDir(), "--out", out}, &stdout, &stderr)
	took := time.Since(began)
	t.Logf("it took %v", took)
	if took > time.Minute {
		t.Errorf("it took %v", took)
	}
	text := stdout.String()
	if code != exitOK || stderr.Len() > 0 || strings.Contains(text, "✗") {
		t.Errorf("exit %d\n%s\n%s", code, &stderr, text)
	}
	for _, s := range scenes() {
		if hasNumber(text, s.resident) {
			t.Errorf("the number of %s is printed", s.name)
		}
	}
	copies, err := filepath.Glob(filepath.Join(out, "*.wav"))
	if err != nil || len(copies) != 3 {
		t.Errorf("copies %v: %v", copies, err)
	}
	for _, c := range copies {
		if !strings.Contains(text, c) {
			t.Errorf("%s is not named", c)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
