package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"centralka/pbx"
	"centralka/pbx/pbxtest"
)

// The addresses of the demo: everybody has one of loopback's. The ports are
// those of SIP and of the status page unless somebody else has them.
var (
	switchHost  = netip.MustParseAddr("127.0.0.10")
	carrierHost = netip.MustParseAddr("127.0.0.2")
	phoneHosts  = map[string]netip.Addr{"101": netip.MustParseAddr("127.0.0.101"), "102": netip.MustParseAddr("127.0.0.102")}
	phoneNames  = []string{"101", "102"}
)

const (
	sipPort     = 5060
	statusPort  = 8082
	startTries  = 5 // when others take the ports that we found free
	readyWithin = 10 * time.Second
	watchEvery  = 40 * time.Millisecond
	logEvery    = 5 * time.Second // lines of progress where there is no terminal
	waitIsShown = 400 * time.Millisecond
	peerSlack   = 2 * time.Second // by which a busy machine may delay voice
)

// city is the running demo: a switch, as serve starts it, and simulated peers
// around it. Goroutines: the switch's, each peer's, and one that watches; close
// ends them in one visible order.
type city struct {
	screen *screen
	ladder *pbxtest.Ladder
	sys    *system
	sip    netip.AddrPort
	status string // the status page's origin: "http://127.0.0.1:8082"
	vault  string
	log    string // the switch's log, a file beside the vault's
	began  time.Time

	carrier *pbxtest.Carrier
	phones  []*pbxtest.Phone
	scenes  []*scene

	stop, hurry context.CancelFunc
	ended       chan error // of the switch
	logFile     *os.File

	mu      sync.Mutex
	known   map[string]string // Call-ID to scene
	peak    int               // most calls at once
	queued  map[string]bool   // scenes that waited in the queue
	talking chan struct{}     // closed when the first conversation has begun
}

// startCity starts the switch with its data in dir, and the peers. It tries
// again on other ports if somebody was quicker.
func startCity(ctx context.Context, dir string, sc *screen) (*city, error) {
	for try := 1; ; try++ {
		c := &city{screen: sc, ladder: pbxtest.NewLadder(), scenes: scenes(), vault: dir, log: filepath.Join(dir, "switch.log"),
			known: map[string]string{}, queued: map[string]bool{}, talking: make(chan struct{})}
		err := c.start(ctx)
		if err == nil {
			return c, nil
		}
		err = errors.Join(err, c.close())
		if try == startTries || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
}

func (c *city) start(ctx context.Context) error {
	var err error
	if c.logFile, err = os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return fmt.Errorf("open the switch's log: %w", err)
	}
	if c.sip, err = unusedUDP(netip.AddrPortFrom(switchHost, sipPort)); err != nil {
		return err
	}
	secrets, err := c.openPeers()
	if err != nil {
		return err
	}
	status, err := unusedTCP(fmt.Sprintf("127.0.0.1:%d", statusPort))
	if err != nil {
		return err
	}
	cfg := demoConfig(c.sip, c.carrier.Addr(), c.vault, status, secrets)
	if c.sys, err = newSystem(cfg, slog.New(slog.NewTextHandler(c.logFile, nil))); err != nil {
		return fmt.Errorf("start the switch: %w", err)
	}
	c.status = "http://" + c.sys.statusLn.Addr().String()
	stop, stopNow := context.WithCancel(context.WithoutCancel(ctx))
	hurry, hurryNow := context.WithCancel(context.WithoutCancel(ctx))
	c.stop, c.hurry = stopNow, hurryNow
	c.ended = make(chan error, 1)
	go func() { c.ended <- c.sys.run(stop, hurry) }()
	return c.awaitReady(ctx)
}

// awaitReady returns when the switch takes calls.
func (c *city) awaitReady(ctx context.Context) error {
	late := time.After(readyWithin)
	for !c.sys.sw.Ready() {
		select {
		case err := <-c.ended:
			c.ended <- nil // close waits for it
			return fmt.Errorf("the switch did not start: %w", err)
		case <-late:
			return fmt.Errorf("the switch is not ready after %v: %s; its log is %s", readyWithin, strings.Join(c.sys.sw.NotReady(), "; "), c.log)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchEvery / 4):
		}
	}
	return nil
}

// openPeers opens carrier and phones, and returns the phones' passwords.
func (c *city) openPeers() (passwords map[string]string, err error) {
	open := func(host netip.Addr, make func(netip.AddrPort) error) error {
		err := make(netip.AddrPortFrom(host, sipPort))
		if errors.Is(err, syscall.EADDRINUSE) {
			err = make(netip.AddrPortFrom(host, 0))
		}
		return err
	}
	peer := func(name string, addr netip.AddrPort, seed uint64) pbxtest.PeerConfig {
		return pbxtest.PeerConfig{
			Name: name, Listen: pbxtest.ListenUDP, Addr: addr, Switch: c.sip, Seed: seed, OnMessage: c.observe,
			Voice:  pbxtest.Voice{Say: pbxtest.Silence(), Tolerance: peerSlack},
			Behave: pbxtest.Always(pbxtest.AnswerAfter(answerAfter)),
		}
	}
	seed := uint64(time.Now().UnixNano())
	err = open(carrierHost, func(a netip.AddrPort) (err error) {
		c.carrier, err = pbxtest.NewCarrier(peer("carrier", a, seed))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the carrier: %w", err)
	}
	passwords = map[string]string{}
	for i, name := range phoneNames {
		passwords[name] = rand.Text()
		err = open(phoneHosts[name], func(a netip.AddrPort) error {
			cfg := peer(name, a, seed+uint64(i)+1)
			cfg.Password = passwords[name]
			if i == 1 { // so that calls between the two laws of G.711 are shown, too
				cfg.Voice.Codecs = []pbxtest.Codec{pbxtest.PCMU}
			}
			p, err := pbxtest.NewPhone(cfg)
			if err == nil {
				c.phones = append(c.phones, p)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("start phone %s: %w", name, err)
		}
	}
	return passwords, nil
}

// demoKey is the master key of a demonstration's vault, where commands with
// --dir look for it.
func demoKey(vault string) string { return filepath.Clean(vault) + ".key" }

// demoConfig is what the file of a small centre would say.
func demoConfig(sip, carrier netip.AddrPort, vault, status string, passwords map[string]string) Config {
	cfg := DefaultConfig()
	cfg.Vault.Dir, cfg.Vault.MasterKey = vault, demoKey(vault)
	cfg.Web = WebConfig{Status: status}
	cfg.SIP.Listen = []pbx.Listener{{Transport: "udp", Addr: sip}}
	trunk := pbx.DefaultTrunk()
	trunk.Name, trunk.Server, trunk.CallerNumber = "carrier", carrier.String(), cityNumber.E164()
	trunk.From = []pbx.Source{{Prefix: netip.PrefixFrom(carrier.Addr(), carrier.Addr().BitLen()), Port: carrier.Port()}}
	cfg.Trunks = []pbx.TrunkConfig{trunk}
	cfg.Numbers = []pbx.NumberConfig{{Match: cityNumber.E164(), Target: "queue:cim"}}
	queue := pbx.DefaultQueue()
	queue.Name, queue.Members = "cim", phoneNames // no hours: always open
	cfg.Queues = []pbx.QueueConfig{queue}
	for _, name := range phoneNames {
		ext := pbx.DefaultExtension()
		ext.Number, ext.Name = name, "Stanowisko "+name
		cfg.Extensions = append(cfg.Extensions, ext)
	}
	cfg.Dial.OutsidePrefix = dialPrefix
	cfg.passwords = pbx.Secrets{Extensions: passwords}
	return cfg
}

// register logs the phones in.
func (c *city) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for _, p := range c.phones {
		if err := p.Register(ctx); err != nil {
			return fmt.Errorf("phone %s does not register: %w", p.Name(), err)
		}
	}
	return nil
}

// draw begins the ladder.
func (c *city) draw() {
	c.ladder.Name(c.carrier.Addr(), "carrier")
	c.ladder.Name(c.sip, "switch")
	for _, p := range c.phones {
		name := "phone " + p.Name()
		if !c.screen.roomForPhones() {
			name = "phones " + strings.Join(phoneNames, ", ")
		}
		c.ladder.Name(p.Addr(), name)
	}
	c.ladder.Stream(c.screen)
}

// observe puts a message into the ladder, under its scene. Peers call it for
// each message, so it must not use them.
func (c *city) observe(e pbxtest.Entry) {
	_, method := e.Message.CSeq()
	if method == "OPTIONS" {
		return // signs of life: every 30 s, and nobody's call
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := e.Message.CallID()
	name, ok := c.known[id]
	if !ok {
		if method == "INVITE" {
			name = c.sceneBy(e)
		}
		c.known[id] = name
	}
	c.screen.next(name)
	c.ladder.Observe(e)
}

// sceneBy finds the scene of a call by its INVITE: of the two that an outgoing
// call has, the one that reaches the carrier names the resident as called.
func (c *city) sceneBy(e pbxtest.Entry) string {
	fromPhone := e.Peer != c.carrier.Name() && e.Out
	toCarrier := e.Peer == c.carrier.Name() && !e.Out
	if fromPhone || toCarrier {
		for _, s := range c.scenes {
			if s.outgoing != "" {
				return s.name
			}
		}
	}
	return sceneOf(c.scenes, e.Message.Number("From"))
}

// close ends the switch, then its peers. No call goes on any more.
func (c *city) close() error {
	var errs []error
	switch {
	case c.ended != nil:
		c.stop()
		c.hurry()
		errs = append(errs, <-c.ended)
	case c.sys != nil:
		errs = append(errs, c.sys.close())
	}
	if c.carrier != nil {
		errs = append(errs, c.carrier.Close())
	}
	for _, p := range c.phones {
		errs = append(errs, p.Close())
	}
	if c.logFile != nil {
		errs = append(errs, c.logFile.Close())
	}
	return errors.Join(errs...)
}

// unusedUDP returns a if nobody listens there, else the same address with a free
// port.
func unusedUDP(a netip.AddrPort) (netip.AddrPort, error) {
	for {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(a))
		if err == nil {
			got := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			return got, conn.Close()
		}
		if a.Port() == 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return a, fmt.Errorf("find a port for SIP: %w", err)
		}
		a = netip.AddrPortFrom(a.Addr(), 0)
	}
}

// unusedTCP returns addr if nobody listens there, else its host with port 0: the
// system picks one.
func unusedTCP(addr string) (string, error) {
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		return addr, ln.Close()
	}
	host, _, splitErr := net.SplitHostPort(addr)
	if splitErr != nil || !errors.Is(err, syscall.EADDRINUSE) {
		return "", fmt.Errorf("find a port for the status page: %w", err)
	}
	return net.JoinHostPort(host, "0"), nil
}
