//go:build amd64 || arm64

package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr is an IPv4 or IPv6 socket address as the kernel takes it, written
// once and used for many packets. Zones of IPv6 are not kept.
//
//	IPv4: family 2, port 2, address 4, zero 8
//	IPv6: family 2, port 2, flow 4, address 16, scope 4
type sockaddr struct {
	b   [unix.SizeofSockaddrInet6]byte
	len uint32
}

// set writes an address for a socket of the family; an IPv4 address for an IPv6
// socket becomes a mapped one.
func (s *sockaddr) set(a netip.AddrPort, family uint16) {
	*s = sockaddr{}
	binary.NativeEndian.PutUint16(s.b[0:], family)
	binary.BigEndian.PutUint16(s.b[2:], a.Port())
	if family == unix.AF_INET {
		s.len = unix.SizeofSockaddrInet4
		if a.Addr().Is4() {
			ip := a.Addr().As4()
			copy(s.b[4:], ip[:])
		}
		return
	}
	s.len = unix.SizeofSockaddrInet6
	ip := a.Addr().As16()
	copy(s.b[8:], ip[:])
}

// addrPort reads the address that the kernel wrote, an IPv4 one in IPv4's form.
func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(s.b[2:])
	if binary.NativeEndian.Uint16(s.b[0:]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s.b[4:8])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s.b[8:24])).Unmap(), port)
}

// udpSocket is a bound, non-blocking UDP socket, outside of the runtime's
// poller.
type udpSocket struct {
	fd     int
	family uint16
}

// openUDP opens a socket on exactly that address and port. An unspecified IPv6
// address serves IPv4 as well.
func openUDP(addr netip.AddrPort) (udpSocket, error) {
	s := udpSocket{family: unix.AF_INET}
	if addr.Addr().Is6() && !addr.Addr().Is4In6() {
		s.family = unix.AF_INET6
	}
	fd, err := unix.Socket(int(s.family), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, os.NewSyscallError("socket", err)
	}
	s.fd = fd
	if err := s.bind(addr); err != nil {
		return s, errors.Join(fmt.Errorf("bind %v: %w", addr, err), s.close())
	}
	return s, nil
}

func (s udpSocket) bind(addr netip.AddrPort) error {
	if s.family == unix.AF_INET {
		return unix.Bind(s.fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().Unmap().As4()})
	}
	only := 1
	if addr.Addr().IsUnspecified() {
		only = 0
	}
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return unix.Bind(s.fd, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
}

// mark sets the DSCP of what the socket sends. An IPv6 socket may send IPv4,
// which has a mark of its own.
func (s udpSocket) mark(dscp int) error {
	// The two bits below the DSCP are ECN (RFC 3168 §5).
	tos := dscp << 2
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TOS, tos); err != nil {
		return fmt.Errorf("set TOS %#x: %w", tos, err)
	}
	if s.family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos); err != nil {
			return fmt.Errorf("set traffic class %#x: %w", tos, err)
		}
	}
	return nil
}

func (s udpSocket) close() error { return os.NewSyscallError("close", unix.Close(s.fd)) }

// The system calls of the packet path. They never block, so the runtime is not
// told of them (RawSyscall): the thread keeps its place in the scheduler. They
// are here and not taken from unix because that allocates an address for each
// packet. The memory that they are given must not be on a stack that may move:
// it belongs to the loop.

// receive takes one datagram, cut off at the end of b, which must not be empty.
func (s udpSocket) receive(b []byte, from *sockaddr) (int, syscall.Errno) {
	from.len = uint32(len(from.b))
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		0, uintptr(unsafe.Pointer(&from.b)), uintptr(unsafe.Pointer(&from.len)))
	return int(n), errno
}

// send sends one datagram, which must not be empty.
func (s udpSocket) send(b []byte, to *sockaddr) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		0, uintptr(unsafe.Pointer(&to.b)), uintptr(to.len))
	return errno
}

// epollHold is epoll_wait by a thread that keeps its place in the scheduler
// while it waits. The runtime can interrupt it by its preemption signal, and then
// it fails with EINTR.
func epollHold(poll int, events []unix.EpollEvent, milliseconds int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(poll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(milliseconds), 0, 0)
	return int(n), errno
}

// sleepHold is nanosleep by a thread that keeps its place in the scheduler. What
// interrupts epollHold interrupts it too.
func sleepHold(d *unix.Timespec) {
	_, _, _ = syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(d)), 0, 0)
}
