//go:build interop

// The interoperability tests: the built binary against real peers, all of them
// processes of their own on loopback. SIPp plays the carrier and signals to the
// letter of its scenarios (pbx/testdata/sipp), baresip is the desk phone, sox
// and go-audio/wav judge the recordings. docs/interop.md tells how to run and
// read them.
package main_test

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// interopParallel is how many switches run at a time: the tests wait more than
// they compute.
const interopParallel = "6"

// interopBinary is the switch under test, built by TestMain.
var interopBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(interopMain(m))
}

func interopMain(m *testing.M) int {
	for tool, pkg := range map[string]string{"sipp": "sip-tester", "baresip": "baresip-core", "linphonec": "linphone-cli", "sox": "sox"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "the interoperability tests need %s (Debian package %s): %v\n", tool, pkg, err)
			return 1
		}
	}
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", interopParallel); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	dir, err := os.MkdirTemp("", "centralka-interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	interopBinary = filepath.Join(dir, "centralka")
	build := exec.Command("go", "build", "-o", interopBinary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the switch: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is one program that a test started. It leads a process group of its
// own, which is killed when the test ends, and dies with the test binary.
type process struct {
	t       *testing.T
	name    string
	cmd     *exec.Cmd
	logPath string
	done    chan struct{} // closed when it has ended
	err     error         // of Wait; read after done
}

// start runs argv in dir. What it prints goes to a file among the test's
// artifacts, whose tail is shown if the test fails.
func start(t *testing.T, name, dir string, argv ...string) *process {
	t.Helper()
	return startFed(t, name, dir, nil, argv...)
}

// startFed is start of a program that reads its orders from stdin.
func startFed(t *testing.T, name, dir string, stdin *os.File, argv ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, logPath: filepath.Join(t.ArtifactDir(), name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	if stdin != nil { // a nil file would be no nil reader
		p.cmd.Stdin = stdin
	}
	p.cmd.Env = append(os.Environ(), "LC_ALL=C", "TERM=dumb", "HOME="+dir)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		out.Close()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s: %s\n%s", name, strings.Join(argv, " "), tailOf(p.logPath, 60))
		}
	})
	return p
}

// kill ends the process and whatever it started, at once.
func (p *process) kill() {
	select {
	case <-p.done:
		return
	default:
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		p.t.Errorf("kill %s: %v", p.name, err)
	}
	<-p.done
}

// wait returns the exit code, or fails the test if the process is still there
// after timeout.
func (p *process) wait(timeout time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(timeout):
		p.t.Fatalf("%s still runs after %v", p.name, timeout)
		return -1
	}
}

// tailOf returns the last lines of a file, for a failure's report.
func tailOf(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.ReplaceAll(strings.TrimSpace(string(b)), "\r\n", "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// eventually asks until it is true, and fails the test when it never is.
func eventually(t *testing.T, timeout time.Duration, what string, ask func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, timeout)
		case <-tick.C:
		}
	}
}

// The tones by which parties are told apart, in Hz. Each has a whole number of
// periods in 20 ms, so that a loop of it has no click.
const (
	toneAnnouncement = 650
	toneCarrier      = 1000
	tonePhone        = 400
	toneOtherPhone   = 1500
)

// Numbers of the test city.
const (
	officeNumber  = "+48914245000"
	directNumber  = "+48914245101"
	citizenNumber = "+48600100200"
	trunkSecret   = "trunk secret"
)

// rigs counts the loopback networks handed out: each test has a /24 of its own
// in 127.0.0.0/8, so that ports never collide.
var rigs atomic.Uint32

// rig is one switch under test with its peers, on 127.A.B.0/24: the switch is
// .1, the carriers .2 and .3, phones of SIPp .4 and up.
type rig struct {
	t    *testing.T
	net  string // "127.A.B."
	dir  string // configuration and vault
	ann  string // announcement; empty: the embedded one
	proc *process
	runs int

	// Before start:
	extensions  []extension
	carriers    []string // addresses that are the trunk's
	trunks      string   // further configuration
	annHash     string   // of the announcement; empty: the right one
	ringTimeout time.Duration
	secrets     string // further secrets of trunks
	// optionsInterval is how often trunks and phones are asked; 0: never.
	optionsInterval string
	srtp            string // of the extensions; the switch takes TLS too if it is set
}

// extension is a phone account of the rig.
type extension struct {
	number, password string
	agent            bool
}

// newRig prepares a switch with a short announcement and agents 101 and 102;
// fields may be changed before start.
func newRig(t *testing.T) *rig {
	t.Helper()
	t.Parallel()
	n := rigs.Add(1)
	r := &rig{t: t, dir: t.TempDir(), ringTimeout: 8 * time.Second, optionsInterval: "0"}
	r.net = fmt.Sprintf("127.%d.%d.", 16+os.Getpid()%200, n%250+1)
	r.carriers = []string{r.addr(2), r.addr(3)}
	r.extensions = []extension{{"101", "first secret", true}, {"102", "secondsecret", true}, {"103", "thirdsecret", false}}
	r.ann = filepath.Join(r.dir, "announcement.wav")
	writeTone(t, r.ann, toneAnnouncement, time.Second)
	return r
}

// addr is the rig's address with that last byte.
func (r *rig) addr(host int) string { return fmt.Sprint(r.net, host) }

// sip is where the switch listens.
func (r *rig) sip() string { return r.addr(1) + ":5060" }

// sips is where it takes TLS.
func (r *rig) sips() string { return r.addr(1) + ":5061" }

func (r *rig) vault() string     { return filepath.Join(r.dir, "vault") }
func (r *rig) masterKey() string { return filepath.Join(r.dir, "master.key") }

// configure writes the configuration and the secrets and returns the former's
// path.
func (r *rig) configure() string {
	r.t.Helper()
	var c, secrets strings.Builder
	var agents []string
	fmt.Fprintln(&secrets, "[extension]")
	for _, e := range r.extensions {
		fmt.Fprintf(&secrets, "%q = %q\n", e.number, e.password)
		if e.agent {
			agents = append(agents, fmt.Sprintf("%q", e.number))
		}
	}
	fmt.Fprintf(&secrets, "[trunk]\noperator = %q\n%s", trunkSecret, r.secrets)

	fmt.Fprintf(&c, "[vault]\ndir = %q\nmaster_key = %q\n", r.vault(), r.masterKey())
	listen := []string{"udp://" + r.sip(), "tcp://" + r.sip()}
	if r.srtp != "" {
		listen = append(listen, "tls://"+r.sips())
	}
	fmt.Fprintf(&c, "[sip]\nlisten = [%s]\noptions_interval = %q\n", quoted(listen), r.optionsInterval)
	if r.srtp != "" {
		cert, key := writeCertificate(r.t, r.dir, r.addr(1))
		fmt.Fprintf(&c, "certificate = %q\nkey = %q\n", cert, key)
	}
	fmt.Fprintf(&c, "[rtp]\nports = \"20000-20199\"\n")
	fmt.Fprintf(&c, "[[trunk]]\nname = \"operator\"\nserver = %q\nfrom = [%s]\nuser = \"szczecin\"\ncaller_number = %q\n",
		r.addr(2)+":5080", quoted(r.carriers), officeNumber)
	c.WriteString(r.trunks)
	fmt.Fprintf(&c, "[[number]]\nmatch = %q\ntarget = \"queue:cim\"\n", officeNumber)
	fmt.Fprintf(&c, "[[number]]\nmatch = %q\ntarget = \"extension:101\"\n", directNumber)
	if r.ann != "" {
		b, err := os.ReadFile(r.ann)
		if err != nil {
			r.t.Fatal(err)
		}
		hash := r.annHash
		if hash == "" {
			hash = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		fmt.Fprintf(&c, "[announcement]\nfile = %q\nsha256 = %q\n", r.ann, hash)
	}
	fmt.Fprintf(&c, "[[queue]]\nname = \"cim\"\nmembers = [%s]\nring_timeout = %q\n", strings.Join(agents, ", "), r.ringTimeout)
	for _, e := range r.extensions {
		fmt.Fprintf(&c, "[[extension]]\nnumber = %q\nagent = %v\ndigest = \"md5\"\n", e.number, e.agent)
		if r.srtp != "" {
			fmt.Fprintf(&c, "srtp = %q\n", r.srtp)
		}
	}
	fmt.Fprintf(&c, "[web]\npublic = %q\nstaff = %q\nstatus = %q\n", r.addr(1)+":8080", r.addr(1)+":8081", r.addr(1)+":8082")
	fmt.Fprintf(&c, "[secrets]\nfile = %q\n", filepath.Join(r.dir, "secrets.toml"))

	path := filepath.Join(r.dir, "centralka.toml")
	for name, text := range map[string]string{path: c.String(), filepath.Join(r.dir, "secrets.toml"): secrets.String()} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	return path
}

func quoted(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return strings.Join(out, ", ")
}

// start runs the switch until it says that it takes calls.
func (r *rig) start() { r.t.Helper(); r.launch(http.StatusOK) }

// launch runs the switch until its readiness is answered with status.
func (r *rig) launch(status int) {
	r.t.Helper()
	r.runs++
	r.proc = start(r.t, fmt.Sprintf("switch-%d", r.runs), r.dir, interopBinary, "serve", "--config", r.configure())
	eventually(r.t, 15*time.Second, fmt.Sprintf("the switch answers /readyz with %d", status), func() bool {
		select {
		case <-r.proc.done:
			r.t.Fatalf("the switch ended at start: %v", r.proc.err)
		default:
		}
		got, _ := r.get("/readyz")
		return got == status
	})
}

// get asks the status listener.
func (r *rig) get(path string) (status int, body string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr(1)+":8082"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, ""
	}
	return res.StatusCode, string(b)
}

// signal tells the switch something.
func (r *rig) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.proc.cmd.Process.Signal(sig); err != nil {
		r.t.Fatalf("send %v to the switch: %v", sig, err)
	}
}

// logs reports whether the switch's log has text.
func (r *rig) logs(text string) bool {
	b, err := os.ReadFile(r.proc.logPath)
	return err == nil && strings.Contains(string(b), text)
}

// stop ends the switch as an administrator does and asserts a clean end.
func (r *rig) stop() {
	r.t.Helper()
	r.signal(syscall.SIGTERM)
	r.ended()
}

// ended asserts a clean end of a switch that was told to stop.
func (r *rig) ended() {
	r.t.Helper()
	if code := r.proc.wait(20 * time.Second); code != 0 {
		r.t.Fatalf("the switch ended with %d (%v), want 0", code, r.proc.err)
	}
	if r.logs("panic") || r.annHash == "" && r.logs("level=ERROR") {
		r.t.Error("the switch's log has an error or a panic")
	}
	if r.logs(citizenNumber[3:]) {
		r.t.Error("the switch's log names a citizen's number")
	}
}
