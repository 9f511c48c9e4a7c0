package pbx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// resolveEvery is how long the addresses of a trunk's server are used. Go's
	// resolver does not tell the time to live; a minute is what carriers move
	// their servers in.
	resolveEvery   = time.Minute
	resolveTimeout = 5 * time.Second
	// maxTargets bounds the servers of one trunk.
	maxTargets = 16
)

// Resolver looks names up. A name that is not there is a *net.DNSError that
// says so.
type Resolver interface {
	LookupNAPTR(ctx context.Context, name string) ([]NAPTR, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// NAPTR is one record of RFC 3403, of which Resolution are the services, without its regular expression: SIP has no use
// for those that have one (RFC 3263 §4.1).
type NAPTR struct {
	Order, Preference uint16
	Flags, Resolution string
	Replacement       string
}

// trunkServer is the server of a [[trunk]] as it is written:
// [udp://|tcp://|tls://]HOST[:PORT].
type trunkServer struct {
	transport string // "UDP", "TCP", "TLS"; "": as the names say
	host      string
	port      uint16 // 0: none is written
}

// parseServer reads it.
func parseServer(text string) (s trunkServer, ok bool) {
	rest := text
	if scheme, after, found := strings.Cut(text, "://"); found {
		switch scheme {
		case "udp", "tcp", "tls":
			s.transport = strings.ToUpper(scheme)
		default:
			return s, false
		}
		rest = after
	}
	s.host = rest
	if h, p, err := net.SplitHostPort(rest); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return s, false
		}
		s.host, s.port = h, uint16(n)
	}
	s.host = strings.Trim(s.host, "[]")
	if _, err := netip.ParseAddr(s.host); err == nil {
		return s, true
	}
	return s, s.host != "" && isHost(s.host)
}

// addr is the server's address, if that is what is written.
func (s trunkServer) addr() (netip.Addr, bool) {
	a, err := netip.ParseAddr(s.host)
	return a.Unmap(), err == nil
}

// server is one place at which a trunk's calls are taken.
type server struct {
	transport string
	addr      netip.AddrPort
}

// service is where to ask for SRV records, and what answers.
type service struct {
	transport    string
	label, proto string // "sip", "udp"; empty: name is the whole name of the SRV
	name         string
	host         bool // name is that of a host
}

// Those of a domain that has no NAPTR records, in our order (RFC 3263 §4.1).
func servicesOf(host string) []service {
	return []service{
		{transport: "UDP", label: "sip", proto: "udp", name: host},
		{transport: "TCP", label: "sip", proto: "tcp", name: host},
		{transport: "TLS", label: "sips", proto: "tcp", name: host},
	}
}

// locate finds the servers behind a trunk's name in the order in which they are
// tried (RFC 3263 §4): an address as it is, host:port by its addresses, a host
// alone by NAPTR, which chooses the transport, then SRV, and without either by
// its addresses. speaks says of which transports we have a listener; a transport
// that is written down is the only one. UDP is taken if nothing names another.
func locate(ctx context.Context, r Resolver, text string, speaks func(transport string) bool) ([]server, error) {
	s, ok := parseServer(text)
	if !ok {
		return nil, fmt.Errorf("trunk server %q: not a server", text)
	}
	wanted := func(transport string) bool {
		return speaks(transport) && (s.transport == "" || s.transport == transport)
	}
	transport := cmp.Or(s.transport, "UDP")
	port := s.port
	if port == 0 {
		port = defaultPort(transport)
	}
	if addr, ok := s.addr(); ok {
		return []server{{transport, netip.AddrPortFrom(addr, port)}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	if s.port == 0 {
		all, err := locateServices(ctx, r, s.host, wanted)
		if err != nil || len(all) > 0 {
			return all, err
		}
	}
	addrs, err := r.LookupNetIP(ctx, "ip", s.host)
	if err != nil {
		return nil, fmt.Errorf("resolve trunk server %q: %w", s.host, err)
	}
	return atPort(nil, transport, addrs, port), nil
}

// locateServices follows NAPTR and SRV. Nothing and no error: there are none.
func locateServices(ctx context.Context, r Resolver, host string, wanted func(string) bool) (all []server, err error) {
	var last error
	records, err := r.LookupNAPTR(ctx, host)
	if err != nil && !notFound(err) {
		last = err // SRV may work all the same
	}
	services := chooseNAPTR(records, wanted)
	named := len(services) > 0
	if !named {
		services = servicesOf(host)
	}
	for _, sv := range services {
		if !wanted(sv.transport) {
			continue
		}
		found, err := locateService(ctx, r, sv)
		if err != nil {
			if last == nil || notFound(last) {
				last = err
			}
			continue
		}
		for _, f := range found {
			if len(all) < maxTargets && !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	if len(all) == 0 && (named || last != nil && !notFound(last)) {
		return nil, fmt.Errorf("resolve trunk server %q: %w", host, cmp.Or(last, error(errNoService)))
	}
	return all, nil
}

var (
	errNoService  = errors.New("no server of it is to be found")
	errTakesNone  = errors.New("it says that it takes no calls") // RFC 2782
	naptrServices = map[string]string{"SIP+D2U": "UDP", "SIP+D2T": "TCP", "SIPS+D2T": "TLS"}
)

func notFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// chooseNAPTR keeps what we can use of the lowest order that has anything of use,
// by preference (RFC 3263 §4.1, RFC 3403 §4.1).
func chooseNAPTR(records []NAPTR, wanted func(string) bool) (out []service) {
	sorted := slices.Clone(records)
	slices.SortStableFunc(sorted, func(a, b NAPTR) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Preference, b.Preference))
	})
	order := uint16(0)
	for _, n := range sorted {
		transport := naptrServices[strings.ToUpper(n.Resolution)]
		flag := strings.ToUpper(n.Flags)
		name := strings.TrimSuffix(n.Replacement, ".")
		if transport == "" || !wanted(transport) || name == "" || flag != "S" && flag != "A" {
			continue
		}
		if len(out) > 0 && n.Order != order {
			break
		}
		order = n.Order
		out = append(out, service{transport: transport, name: name, host: flag == "A"})
	}
	return out
}

// locateService finds the servers of one service.
func locateService(ctx context.Context, r Resolver, sv service) ([]server, error) {
	if sv.host {
		addrs, err := r.LookupNetIP(ctx, "ip", sv.name)
		if err != nil {
			return nil, err
		}
		return atPort(nil, sv.transport, addrs, defaultPort(sv.transport)), nil
	}
	_, srv, err := r.LookupSRV(ctx, sv.label, sv.proto, sv.name)
	if err != nil {
		return nil, err
	}
	return locateSRV(ctx, r, sv.transport, orderSRV(srv, rand.IntN))
}

// locateSRV finds the addresses of each server; one without any is left out.
func locateSRV(ctx context.Context, r Resolver, transport string, srv []*net.SRV) (all []server, err error) {
	var last error
	for _, s := range srv {
		host := strings.TrimSuffix(s.Target, ".")
		if host == "" {
			return nil, errTakesNone
		}
		addrs, err := r.LookupNetIP(ctx, "ip", host)
		if err != nil {
			last = err
			continue
		}
		all = atPort(all, transport, addrs, s.Port)
	}
	if len(all) == 0 {
		return nil, cmp.Or(last, error(errNoService))
	}
	return all, nil
}

func atPort(all []server, transport string, addrs []netip.Addr, port uint16) []server {
	for _, a := range addrs {
		s := server{transport, netip.AddrPortFrom(a.Unmap(), port)}
		if len(all) < maxTargets && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// orderSRV sorts by priority, and draws by weight among equals: a server with
// weight 0 has next to no chance to come first (RFC 2782). draw is rand.IntN.
func orderSRV(srv []*net.SRV, draw func(n int) int) []*net.SRV {
	left := slices.Clone(srv)
	slices.SortStableFunc(left, func(a, b *net.SRV) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Weight, b.Weight))
	})
	var out []*net.SRV
	for len(left) > 0 {
		n := 0 // of equals
		sum := 0
		for n < len(left) && left[n].Priority == left[0].Priority {
			sum += int(left[n].Weight)
			n++
		}
		pick := 0
		for at := draw(sum + 1); pick < n-1; pick++ {
			if at -= int(left[pick].Weight); at <= 0 {
				break
			}
		}
		out = append(out, left[pick])
		left = slices.Delete(left, pick, pick+1)
	}
	return out
}
