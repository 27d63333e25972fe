//go:build !linux

package main

import (
	"net"
	"time"
)

// queued cannot tell here how many connections nobody has accepted yet.
func queued(net.Listener) int { return 0 }

// sinceReceived cannot tell here how long a request has waited in its connection.
func sinceReceived(net.Conn) time.Duration { return 0 }
