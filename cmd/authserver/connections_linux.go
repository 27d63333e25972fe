package main

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// queued is how many connections nobody has accepted yet.
func queued(listener net.Listener) (n int) {
	system, ok := listener.(syscall.Conn)
	if !ok {
		return 0
	}
	if raw, err := system.SyscallConn(); err == nil {
		raw.Control(func(socket uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(socket), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				n = int(info.Unacked) // of a listener: the length of its queue
			}
		})
	}
	return n
}

// sinceReceived asks the system when the last bytes of a connection came in.
func sinceReceived(connection net.Conn) (since time.Duration) {
	onSocket(connection, func(socket int) {
		if info, err := unix.GetsockoptTCPInfo(socket, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			since = time.Duration(info.Last_data_recv) * time.Millisecond
		}
	})
	return since
}
