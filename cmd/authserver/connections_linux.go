package main

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// sinceReceived asks the system when the last bytes of a connection came in.
func sinceReceived(connection net.Conn) (since time.Duration) {
	onSocket(connection, func(socket int) {
		if info, err := unix.GetsockoptTCPInfo(socket, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			since = time.Duration(info.Last_data_recv) * time.Millisecond
		}
	})
	return since
}
