package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"centralka/ordinance"
)

const killEnv = "CENTRALKA_STORE_KILL_TEST"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killEnv); dir != "" {
		if err := killMe(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// killMe is the child: it says on standard output what was acknowledged and
// goes on until it is killed, at the latest in the middle of a sweep.
func killMe(dir string) error {
	unlinks := 0
	files := osFiles
	files.unlink = func(root *os.Root, name string) error {
		if unlinks++; strings.HasPrefix(name, dayDir(dueDay())) && unlinks > 43 {
			fmt.Println("sweeping")
			select {}
		}
		return osFiles.unlink(root, name)
	}
	s, err := Open(Config{Dir: dir, files: &files, clock: goodClock()})
	if err != nil {
		return err
	}
	for i := range 40 {
		day := dueDay()
		if i%2 == 0 {
			day = ordinance.DayOf(time.Now())
		}
		rec := call(day, 0)
		j, err := s.CreateJournal(day, rec.ID)
		if err != nil {
			return err
		}
		if err := errors.Join(j.Append([]byte("x")), j.Close()); err != nil {
			return err
		}
		f, err := s.PutFile(day, rec.ID, func(w io.Writer) error {
			_, err := w.Write(rec.ID[:])
			return err
		})
		if err != nil {
			return err
		}
		rec.Recording = Recording{Outcome: OutcomeOK, Size: f.Size, SHA256: f.SHA256}
		if err := s.CommitRecording(rec); err != nil {
			return err
		}
		fmt.Println("committed", day, rec.ID)
	}
	_, err = s.Sweep(noCancel{}, time.Now())
	return errors.Join(errors.New("the sweep was not interrupted"), err)
}

func dueDay() ordinance.Day { return ordinance.DayOf(time.Now()).Next(-200) }

// TestKill kills a process that commits recordings after some of its
// acknowledgements, and one in the middle of a sweep.
func TestKill(t *testing.T) {
	for _, after := range []int{1, 7, 25, 41} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			dir := filepath.Join(memoryDir(t), "vault")
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), killEnv+"="+dir)
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			var said []string
			lines := bufio.NewScanner(out)
			for len(said) < after && lines.Scan() {
				said = append(said, lines.Text())
			}
			must(t, cmd.Process.Kill()) // SIGKILL
			for lines.Scan() {
				said = append(said, lines.Text())
			}
			_ = cmd.Wait() // says that it was killed
			if len(said) < after {
				t.Fatalf("child said only %q", said)
			}
			s := openTest(t, Config{Dir: dir})
			defer closeTest(t, s)
			swept := strings.HasPrefix(said[len(said)-1], "sweeping")
			for _, line := range said {
				text, ok := strings.CutPrefix(line, "committed ")
				if !ok {
					continue
				}
				date, hex, _ := strings.Cut(text, " ")
				day, err := ordinance.ParseDay(date)
				must(t, err)
				id, err := ParseID(hex)
				must(t, err)
				c, err := s.OpenRecording(day, id)
				if swept && day == dueDay() {
					if !errors.Is(err, ErrGone) {
						t.Errorf("recording of a sweep that was killed: %v", err)
					}
					continue
				}
				must(t, err)
				got, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
				must(t, errors.Join(err, c.Close()))
				rec, err := s.Find(id)
				if err != nil || !bytes.Equal(got, id[:]) || rec.Recording.Size != int64(len(got)) {
					t.Errorf("acknowledged %v: %x, %+v, %v", id, got, rec.Recording, err)
				}
			}
			if swept {
				if stones, err := s.Tombstones(dueDay()); err != nil || len(stones) != 20 {
					t.Errorf("%d tombstones, want 20, %v", len(stones), err)
				}
			}
			report, err := s.Verify(t.Context(), nil)
			must(t, err)
			for _, f := range report.Findings {
				if f.Problem != ProblemOrphan {
					t.Errorf("finding %+v", f)
				}
			}
		})
	}
}
