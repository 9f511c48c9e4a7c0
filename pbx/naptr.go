package pbx

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What a NAPTR look-up may cost.
const (
	naptrType    = dnsmessage.Type(35)
	naptrTimeout = 2 * time.Second // of one server
	// An answer is kept for its time to live within these bounds, and that there
	// is none for the lower one.
	naptrLeast = time.Minute
	naptrMost  = time.Hour
	// maxNames bounds the memory; there is one name for each trunk.
	maxNames = 256
)

var errNAPTR = errors.New("malformed NAPTR record")

// systemResolver is Go's resolver, and for NAPTR, which that lacks, a query of
// our own to the servers of resolv.conf. It is safe for concurrent use.
type systemResolver struct {
	*net.Resolver
	conf  string // path of resolv.conf
	mu    sync.Mutex
	cache map[string]naptrAnswer
}

type naptrAnswer struct {
	records []NAPTR
	until   time.Time
}

func newSystemResolver() *systemResolver {
	return &systemResolver{Resolver: net.DefaultResolver, conf: "/etc/resolv.conf", cache: map[string]naptrAnswer{}}
}

// LookupNAPTR asks one server after the other.
func (r *systemResolver) LookupNAPTR(ctx context.Context, name string) ([]NAPTR, error) {
	name = strings.ToLower(strings.TrimSuffix(name, ".")) + "."
	r.mu.Lock()
	known, ok := r.cache[name]
	r.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.records, nil
	}
	qname, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, fmt.Errorf("look up NAPTR of %q: %w", name, err)
	}
	servers, err := nameServers(r.conf)
	if err != nil {
		return nil, fmt.Errorf("look up NAPTR of %q: %w", name, err)
	}
	err = errors.New("no name server")
	for _, s := range servers {
		var records []NAPTR
		var life time.Duration
		if records, life, err = askNAPTR(ctx, s, qname); err == nil {
			r.keep(name, naptrAnswer{records, time.Now().Add(min(max(life, naptrLeast), naptrMost))})
			return records, nil
		}
	}
	return nil, fmt.Errorf("look up NAPTR of %q: %w", name, err)
}

func (r *systemResolver) keep(name string, a naptrAnswer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= maxNames {
		clear(r.cache)
	}
	r.cache[name] = a
}

// nameServers reads the first three of resolv.conf, as the system does.
func nameServers(path string) (out []netip.AddrPort, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(out) == 3 {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out, nil
}

// askNAPTR asks one server, by TCP if the answer does not fit into a datagram.
func askNAPTR(ctx context.Context, at netip.AddrPort, name dnsmessage.Name) ([]NAPTR, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, naptrTimeout)
	defer cancel()
	records, life, truncated, err := exchangeNAPTR(ctx, "udp", at, name)
	if err == nil && truncated {
		records, life, _, err = exchangeNAPTR(ctx, "tcp", at, name)
	}
	return records, life, err
}

func exchangeNAPTR(ctx context.Context, network string, at netip.AddrPort, name dnsmessage.Name) (records []NAPTR, life time.Duration, truncated bool, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, at.String())
	if err != nil {
		return nil, 0, false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if limit, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(limit); err != nil {
			return nil, 0, false, err
		}
	}
	var id [2]byte
	rand.Read(id[:]) // never fails
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:]), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: naptrType, Class: dnsmessage.ClassINET}},
	}
	packet, err := query.Pack()
	if err != nil {
		return nil, 0, false, err
	}
	if network == "tcp" {
		packet = append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
	}
	if _, err := conn.Write(packet); err != nil {
		return nil, 0, false, err
	}
	buf := make([]byte, 65535)
	for {
		answer, err := readDNS(conn, network, buf)
		if err != nil {
			return nil, 0, false, err
		}
		records, life, truncated, mine, err := parseNAPTR(answer, query.Header.ID, name)
		if mine {
			return records, life, truncated, err
		}
		if network == "tcp" {
			return nil, 0, false, errors.New("the answer is not to our question")
		}
	}
}

func readDNS(conn net.Conn, network string, buf []byte) ([]byte, error) {
	if network != "tcp" {
		n, err := conn.Read(buf)
		return buf[:n], err
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	_, err := io.ReadFull(conn, buf[:n])
	return buf[:n], err
}

// parseNAPTR reads an answer. mine: it is one to the question; what is not may
// be anybody's and says nothing.
func parseNAPTR(packet []byte, id uint16, name dnsmessage.Name) (records []NAPTR, life time.Duration, truncated, mine bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(packet)
	if err != nil || h.ID != id || !h.Response {
		return nil, 0, false, false, nil
	}
	q, err := p.Question()
	if err != nil || q.Type != naptrType || !strings.EqualFold(q.Name.String(), name.String()) {
		return nil, 0, false, false, nil
	}
	switch h.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeNameError:
		return nil, 0, false, true, nil // kept as no records, for the shortest time
	default:
		return nil, 0, false, true, fmt.Errorf("the name server answers %v", h.RCode)
	}
	if h.Truncated {
		return nil, 0, true, true, nil
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, 0, false, true, err
	}
	life = naptrMost
	for {
		rh, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return nil, 0, false, true, err
		}
		if rh.Type != naptrType { // a CNAME on the way
			if err := p.SkipAnswer(); err != nil {
				return nil, 0, false, true, err
			}
			continue
		}
		body, err := p.UnknownResource()
		if err != nil {
			return nil, 0, false, true, err
		}
		n, err := unpackNAPTR(body.Data)
		if err != nil {
			return nil, 0, false, true, err
		}
		life = min(life, time.Duration(rh.TTL)*time.Second)
		records = append(records, n)
	}
	if len(records) == 0 {
		life = 0
	}
	return records, life, false, true, nil
}

// unpackNAPTR reads the record's data (RFC 3403 §4.1). Its replacement is not
// compressed.
//
//	order | preference | flags | services | regexp | replacement
//	  16  |     16     |  <character-string>s, length first  | name
func unpackNAPTR(b []byte) (n NAPTR, err error) {
	if len(b) < 4 {
		return n, errNAPTR
	}
	n.Order, n.Preference = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	b = b[4:]
	var regexp string
	for _, to := range []*string{&n.Flags, &n.Resolution, &regexp} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return n, errNAPTR
		}
		*to, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	var labels []string
	for {
		if len(b) == 0 || b[0] > 63 || len(b) < 1+int(b[0]) {
			return n, errNAPTR
		}
		if b[0] == 0 {
			break
		}
		labels, b = append(labels, string(b[1:1+b[0]])), b[1+b[0]:]
	}
	n.Replacement = strings.Join(labels, ".")
	if regexp != "" {
		n.Replacement = "" // of no use to SIP
	}
	return n, nil
}
