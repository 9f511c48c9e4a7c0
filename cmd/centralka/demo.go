package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"centralka/ordinance"
)

// playTime bounds the calls of the demo, so that --once ends within 40 s.
const playTime = 36 * time.Second

// visitAfter is from the first conversation to the look at the status page:
// then one call is talking, one waits, one is recorded besides.
const visitAfter = 5 * time.Second

// demoOptions are the demo's flags.
type demoOptions struct {
	once    bool
	keep    bool
	history bool
	dir     string
	out     string
}

// runDemo is the command demo: a switch as serve runs it, with a simulated
// carrier and simulated phones around it that speak SIP and RTP over UDP
// sockets of this machine. It places calls, tells what happens, and checks by
// ear and by record that it was what had to happen.
func runDemo(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("demo", "Runs the switch with a simulated carrier and two simulated desk phones, on loopback\n"+
		"only: four calls, what happens in them, and their recordings. Ctrl-C ends it.", stderr)
	var o demoOptions
	fs.BoolVar(&o.once, "once", false, "end after the calls; 0 only if all that had to happen did")
	fs.StringVar(&o.dir, "dir", "", "data `folder`; default a temporary one, which is removed at the end")
	fs.StringVar(&o.out, "out", "demo-recordings", "`folder` for copies of the recordings")
	fs.BoolVar(&o.history, "history", false, "place no calls: fill the data folder (--dir) with back-dated ones, to see the six-month rule")
	fs.BoolVar(&o.keep, "keep", false, "keep the temporary data folder")
	if code, ok := parseFlags(fs, args, stderr); !ok {
		return code
	}
	if o.out == "" {
		fmt.Fprintln(stderr, "centralka demo: --out needs a folder")
		return exitUsage
	}
	if o.history {
		return runHistory(o.dir, stdout, stderr)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	ok, err := demo(ctx, o, newScreen(stdout))
	if err != nil {
		fmt.Fprintln(stderr, "centralka demo:", err)
	}
	if err != nil || !ok {
		return exitFailed
	}
	return exitOK
}

// demo runs it; ok means that all that had to happen did.
func demo(ctx context.Context, o demoOptions, sc *screen) (ok bool, err error) {
	dir, remove, err := demoFolder(o)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, remove(), sc.failed()) }()
	c, err := startCity(ctx, dir, sc)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.close()) }()

	c.introduce(o, dir)
	if err := c.register(ctx); err != nil {
		return false, err
	}
	pages := c.perform(ctx)
	if ctx.Err() != nil {
		sc.print("\nInterrupted: the calls were hung up, nothing was checked.")
		return false, nil
	}
	x, err := c.inspect(ctx, o.out, pages)
	if err != nil {
		return false, err
	}
	x.present()
	x.tabulate()
	ok = passed(x.findings)
	if o.once {
		return ok, nil
	}
	sc.print("\nThe switch keeps running, without calls. Its status page: %s/stan\nCtrl-C ends it.", c.status)
	select {
	case <-ctx.Done():
		sc.print("\nStopping.")
		return ok, nil
	case err := <-c.ended:
		c.ended <- nil
		return false, fmt.Errorf("the switch ended: %w", err)
	}
}

// demoFolder makes the data folder, and returns what is to be done with it at
// the end.
func demoFolder(o demoOptions) (dir string, remove func() error, err error) {
	if o.dir != "" {
		if dir, err = filepath.Abs(o.dir); err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err != nil {
			return "", nil, fmt.Errorf("make the data folder: %w", err)
		}
		return dir, func() error { return nil }, nil
	}
	dir = filepath.Join(os.TempDir(), "centralka-demo-"+rand.Text()[:8])
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("make a data folder: %w", err)
	}
	return dir, func() error {
		if o.keep {
			return nil
		}
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(demoKey(dir))); err != nil {
			return fmt.Errorf("remove the data folder: %w", err)
		}
		return nil
	}, nil
}

// introduce says who takes part and what is going to happen.
func (c *city) introduce(o demoOptions, dir string) {
	sc := c.screen
	sc.print("%s", sc.paint("bold", "centralka demo: a contact centre on this machine"))
	sc.print("")
	sc.print("  switch     %-20v this program: answers, announces, queues, connects, records", c.sip)
	sc.print("  carrier    %-20v simulated: brings the residents' calls, speaks for them", c.carrier.Addr())
	for _, p := range c.phones {
		sc.print("  phone %s  %-20v simulated: an agent's desk phone", p.Name(), p.Addr())
	}
	sc.print("")
	sc.print("  status page  %s/stan", c.status)
	kept := "removed at the end; --keep keeps it"
	if o.dir != "" || o.keep {
		kept = "kept"
	}
	sc.print("  data folder  %s (%s)", dir, kept)
	sc.print("")
	sc.print("Four calls, which overlap:")
	for _, s := range c.scenes {
		sc.print("  %s  %s", sc.paint(s.name, s.name), s.title)
	}
	sc.print("")
	sc.paragraph("Each arrow is a message of SIP, the protocol that sets calls up: REGISTER a phone logs in, 401 with its password please, INVITE a call, 100 wait, 180 it rings, 200 yes, ACK understood, BYE hung up. The voices, 50 packets a second each way, are not drawn.")
	sc.print("")
	c.draw()
}

// perform plays the calls, tells what happens, and looks at the status page
// while people talk.
func (c *city) perform(ctx context.Context) []page {
	c.began = time.Now()
	playing, over := context.WithTimeout(ctx, playTime)
	defer over()
	watching := make(chan struct{})
	visited := make(chan []page, 1)
	go func() {
		defer close(watching)
		c.watch(playing)
	}()
	go func() {
		select {
		case <-c.talking:
			select {
			case <-time.After(visitAfter):
			case <-playing.Done():
			}
		case <-playing.Done():
		}
		visited <- visit(context.WithoutCancel(playing), c.status)
	}()
	c.play(playing, c.scenes)
	select { // what the watcher has not seen yet it sees now
	case <-time.After(3 * watchEvery):
	case <-ctx.Done():
	}
	over()
	<-watching
	return <-visited
}

// present shows the recordings and what each lane holds.
func (x *inspection) present() {
	sc := x.c.screen
	if len(x.copies) == 0 {
		return
	}
	sc.print("\n%s", sc.paint("bold", "Recordings, copied out of the vault"))
	sc.paragraph("Listen with headphones: the resident is on the left, the office on the right.")
	for _, cp := range x.copies {
		sc.print("\n  %s  %s", sc.paint(cp.scene.name, cp.scene.name), cp.file)
		sc.print("     %s long; the vault keeps it to the end of %v", seconds(cp.wav.Duration()), ordinance.LastDay(cp.rec.Day))
		for lane, side := range []string{"left ", "right"} {
			sc.print("     %s  %s", side, sc.paint(cp.scene.name, outline(cp.rec.Recording.Peaks[lane], min(60, sc.width-14))))
			for _, l := range cp.holds {
				if l.office == (lane == 1) {
					sc.print("       at %s  „%s”", seconds(l.at), l.polish)
				}
			}
		}
	}
	sc.print("")
	sc.paragraph("These copies are yours: the vault's term of six months does not reach them.")
}

// tabulate prints what had to happen, and whether it did.
func (x *inspection) tabulate() {
	sc := x.c.screen
	sc.print("\n%s", sc.paint("bold", "What had to happen, and did it?"))
	for _, line := range table(sc, x.c.scenes, x.findings) {
		sc.print("%s", line)
	}
	bad := 0
	for _, f := range x.findings {
		if !f.ok {
			bad++
		}
	}
	if bad == 0 {
		sc.print("\n%s", sc.paint("good", fmt.Sprintf("All %d things happened.", len(x.findings))))
		return
	}
	sc.print("\n%s", sc.paint("bad", fmt.Sprintf("%d of %d things did not happen.", bad, len(x.findings))))
}

// table draws findings under their scenes: ✓ or ✗, what had to happen, and what
// shows it.
func table(sc *screen, scenes []*scene, findings []finding) []string {
	widest := 0
	for _, f := range findings {
		widest = max(widest, utf8.RuneCountInString(f.rule))
	}
	var lines []string
	last := "?"
	for _, f := range findings {
		if f.scene != last {
			last = f.scene
			title := sc.paint("bold", "All of it")
			for _, s := range scenes {
				if s.name == f.scene {
					title = sc.paint(s.name, s.name) + "  " + sc.paint("bold", s.title)
				}
			}
			lines = append(lines, "", "  "+title)
		}
		mark := sc.paint("good", "✓")
		if !f.ok {
			mark = sc.paint("bad", "✗")
		}
		lead := "  " + mark + "  " + f.rule + strings.Repeat(" ", widest-utf8.RuneCountInString(f.rule)) + "  "
		for _, why := range wrap(f.why, max(sc.width-widest-8, 20)) {
			lines = append(lines, strings.TrimRight(lead+sc.paint("dim", why), " "))
			lead = strings.Repeat(" ", widest+7)
		}
	}
	return lines
}
