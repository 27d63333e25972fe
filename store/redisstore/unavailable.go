package redisstore

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"authserver/store"

	"github.com/redis/go-redis/v9"
)

var errLoading = &store.UnavailableError{Why: "Redis loads its data"}

// refusals that pass by themselves, or by what is done to Redis, by how they begin.
var refusals = []struct{ prefix, why string }{
	{"LOADING", errLoading.Why},
	{"BUSY", "Redis is busy with a script"},
	{"MASTERDOWN", "Redis has lost its primary"},
	{"CLUSTERDOWN", "the Cluster does not serve all keys"},
	{"TRYAGAIN", "the Cluster moves keys"},
	{"READONLY", "Redis is a replica"},
	{"NOREPLICAS", "Redis has too few replicas"},
	{"MISCONF", "Redis cannot write to its disk"},
	{"OOM", "Redis has no memory left"},
	{"max number of clients", "Redis takes no more connections"},
}

// unavailable makes a store.UnavailableError of an error that may pass by itself. A wrong
// password, certificate or name does not, nor does what Redis is not allowed to do.
func (s *Store) unavailable(err error) error {
	if known := new(store.UnavailableError); errors.As(err, &known) {
		return err
	}
	why := ""
	var name *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &name) && !name.IsNotFound:
		why = "the name of Redis cannot be looked up at this moment"
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "nobody listens at the address of Redis"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		why = "the address of Redis cannot be reached"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout), errors.As(err, &network) && network.Timeout():
		why = "Redis does not answer in time"
		if s.tls {
			why += " (one without TLS does not, to rediss://)"
		}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		why = "Redis ends the connection (one with TLS does so, to redis://)"
	case errors.Is(err, errNotReplicated):
		why = "the replicas of Redis do not confirm in time"
	}
	if why != "" && strings.Contains(err.Error(), "all sentinels") {
		why = "no Sentinel answers"
	}
	for _, refusal := range refusals {
		if redis.HasErrorPrefix(err, refusal.prefix) {
			why = refusal.why
		}
	}
	if why == "" {
		return err
	}
	return &store.UnavailableError{Why: why, Err: err}
}
