package redisstore

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"authserver/store"
)

// What may pass by itself is waited for at a start, and what does not is told at once.
func TestWhatMayPass(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, test := range []struct {
		err    error
		passes bool
	}{
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), true},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), true},
		{dial(os.ErrDeadlineExceeded), true},
		{dial(&net.DNSError{Err: "server misbehaving", Name: "redis", IsTemporary: true}), true},
		{dial(&net.DNSError{Err: "no such host", Name: "redis", IsNotFound: true}), false},
		{context.DeadlineExceeded, true},
		{context.Canceled, false},
		{io.EOF, true},
		{errNotReplicated, true},
		{errLoading, true},
		{x509.UnknownAuthorityError{}, false},
		{errors.New("its role is slave"), false},
		{fmt.Errorf("redis: all sentinels are unreachable: %w", errors.Join(dial(syscall.ECONNREFUSED))), true},
	} {
		var found *store.UnavailableError
		if err := new(Store).trouble(test.err); errors.As(err, &found) != test.passes || !errors.Is(err, test.err) {
			t.Errorf("%v: %v, may pass: %t", test.err, err, test.passes)
		}
	}
}
