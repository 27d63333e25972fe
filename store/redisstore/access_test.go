package redisstore_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/store"
	"authserver/store/redisstore"
	"authserver/store/storetest"

	"github.com/redis/go-redis/v9"
)

func TestContractOverTLS(t *testing.T) {
	server := redistest.StartTLS(t, false)
	options := redisstore.Options{URL: server.URL, Timeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)}
	var unknown x509.UnknownAuthorityError
	if s, err := redisstore.Open(t.Context(), options); !errors.As(err, &unknown) {
		if err == nil {
			s.Close()
		}
		t.Fatalf("with a certificate of nobody we trust: %v", err)
	}
	certificate, err := os.ReadFile(server.CertificateFile)
	if err != nil {
		t.Fatal(err)
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(certificate)
	options.TLSConfig = &tls.Config{RootCAs: authority}
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := redisstore.Open(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}

// The least that the user of one Redis, without a database number in the URL,
// needs; this is the line of the ACL file (with #<sha256> for >secret):
//
//	user authserver on >secret resetchannels ~authserver:* -@all +get +mget +getrange +set +del +incrby +pttl +pexpire +pexpireat +time +zadd +zrem +zrange +zrangebyscore +zscan +xadd +xread +eval +evalsha +info +config|get
var leastCommands = strings.Fields("get mget getrange set del incrby pttl pexpire pexpireat time " +
	"zadd zrem zrange zrangebyscore zscan xadd xread eval evalsha info config|get")

// The user can do what the contract asks for, and each command was used, so that
// none of them can go. It can neither read other keys nor run other commands.
func TestLeastUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.acl")
	line := "user authserver on >secret resetchannels ~authserver:* -@all +" + strings.Join(leastCommands, " +") + "\n"
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t, "--aclfile", path)
	t.Run("contract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return open(t, "redis://authserver:secret@"+server.Addr) })
	})

	administrator := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer administrator.Close()
	statistics, err := administrator.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range leastCommands {
		if !strings.Contains(statistics, "cmdstat_"+command+":calls=") || strings.Contains(statistics, "cmdstat_"+command+":calls=0,") {
			t.Errorf("%s is allowed and not needed", command)
		}
	}
	user := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "authserver", Password: "secret"})
	defer user.Close()
	for _, command := range [][]any{{"GET", "other:key"}, {"KEYS", "*"}, {"FLUSHALL"}, {"CONFIG", "SET", "maxmemory", "1"}, {"ACL", "LIST"}} {
		if err := user.Do(t.Context(), command...).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%v: %v", command, err)
		}
	}
}
