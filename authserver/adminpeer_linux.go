package authserver

import (
	"fmt"
	"net"
	"syscall"
)

// peerOf asks the system which process is at the other end of a connection.
func peerOf(connection *net.UnixConn) (adminPeer, error) {
	nobody := adminPeer{UID: -1}
	raw, err := connection.SyscallConn()
	if err != nil {
		return nobody, fmt.Errorf("asking for the peer: %w", err)
	}
	var credentials *syscall.Ucred
	var asked error
	err = raw.Control(func(descriptor uintptr) {
		credentials, asked = syscall.GetsockoptUcred(int(descriptor), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err == nil {
		err = asked
	}
	if err != nil {
		return nobody, fmt.Errorf("asking for the peer: %w", err)
	}
	return adminPeer{UID: int(credentials.Uid), PID: int(credentials.Pid)}, nil
}
