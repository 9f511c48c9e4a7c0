//go:build interop

package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
	"centralka/store"
)

// TestEmergencyOpening plays a recording without this program: with Debian's age
// and sox and the very commands of the manual.
func TestEmergencyOpening(t *testing.T) {
	base := t.TempDir()
	cfg := store.Config{Dir: filepath.Join(base, "vault"), MasterKey: filepath.Join(base, "master.key")}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pcm, err := twoLanes("caller-id", "agent-hello")
	if err != nil {
		t.Fatal(err)
	}
	day, id := ordinance.DayOf(time.Now()), store.NewID()
	if _, err := s.PutFile(day, id, func(w io.Writer) error { return writeWAV(w, pcm) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(manual), "## Emergency opening\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	block := regexp.MustCompile("(?s)```\n(.*?)```").FindStringSubmatch(section)
	if !ok || block == nil {
		t.Fatal("docs/operations.md has no commands under Emergency opening")
	}
	commands := strings.NewReplacer("/etc/centralka/master.key", cfg.MasterKey, "/var/lib/centralka", cfg.Dir,
		"2026-11-23", day.String(), "RECORDING", id.String()).Replace(block[1])
	cmd := exec.Command("bash", "-euxc", commands)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	frames, err := exec.Command("soxi", "-s", filepath.Join(cmd.Dir, "recording.wav")).Output()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := exec.Command("sox", filepath.Join(cmd.Dir, "recording.wav"), "-t", "s16", "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) != 2*len(pcm) || strings.TrimSpace(string(frames)) == "0" {
		t.Fatalf("%d bytes of audio in %s frames, want %d", len(raw), frames, 2*len(pcm))
	}
	for i, v := range pcm {
		if int16(uint16(raw[2*i])|uint16(raw[2*i+1])<<8) != v {
			t.Fatalf("sample %d differs", i)
		}
	}
}
