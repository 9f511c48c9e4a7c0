package pbx

import (
	"cmp"
	"context"
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

// Resolver looks names up; *net.Resolver is one.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// locate finds the servers behind a trunk's name in the order in which they are
// tried (RFC 3263 §4.2): an address as it is, host:port by its addresses, a
// host alone by SRV for UDP, and without SRV by its addresses at port 5060.
// NAPTR is not asked: Go's resolver cannot, and UDP is what trunks use.
func locate(ctx context.Context, r Resolver, server string) ([]netip.AddrPort, error) {
	host, port := server, uint16(5060)
	named := false
	if h, p, err := net.SplitHostPort(server); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("trunk server %q: bad port", server)
		}
		host, port, named = h, uint16(n), true
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr.Unmap(), port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	if !named {
		if _, srv, err := r.LookupSRV(ctx, "sip", "udp", host); err == nil && len(srv) > 0 {
			return locateSRV(ctx, r, server, orderSRV(srv, rand.IntN))
		}
	}
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve trunk server %q: %w", server, err)
	}
	return atPort(nil, addrs, port), nil
}

// locateSRV finds the addresses of each server; one without any is left out.
func locateSRV(ctx context.Context, r Resolver, server string, srv []*net.SRV) (all []netip.AddrPort, err error) {
	var last error
	for _, s := range srv {
		host := strings.TrimSuffix(s.Target, ".")
		if host == "" {
			return nil, fmt.Errorf("resolve trunk server %q: it says that it takes no calls", server) // RFC 2782
		}
		addrs, err := r.LookupNetIP(ctx, "ip", host)
		if err != nil {
			last = err
			continue
		}
		all = atPort(all, addrs, s.Port)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("resolve trunk server %q: %w", server, last)
	}
	return all, nil
}

func atPort(all []netip.AddrPort, addrs []netip.Addr, port uint16) []netip.AddrPort {
	for _, a := range addrs {
		ap := netip.AddrPortFrom(a.Unmap(), port)
		if len(all) < maxTargets && !slices.Contains(all, ap) {
			all = append(all, ap)
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
