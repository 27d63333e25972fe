package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
)

// trouble is a Redis that answers, but not with what it was asked for.
type trouble struct {
	name   string
	answer string // how Redis refuses to write, as a test of the trouble itself; "" where it does not
	make   func(redis *redistest.Server)
	mend   func(redis *redistest.Server)
}

// troubles of a Redis with the user of docs/operating.md (ATTACKS FT-14, FT-16, FT-17,
// FT-18): out of memory, unable to write its snapshot, made a replica, without the
// user's commands, without the user, and loading after a restart.
var troubles = []trouble{
	{"out of memory", "OOM", func(redis *redistest.Server) { redis.Tell("CONFIG", "SET", "maxmemory", "1") },
		func(redis *redistest.Server) { redis.Tell("CONFIG", "SET", "maxmemory", "0") }},
	{"snapshot fails", "MISCONF", func(redis *redistest.Server) {
		os.Mkdir(filepath.Join(redis.Dir(), "dump.rdb"), 0o700) // in the way of the file
		redis.Tell("CONFIG", "SET", "save", "3600 100000000")
		redis.Tell("BGSAVE")
	}, func(redis *redistest.Server) {
		os.Remove(filepath.Join(redis.Dir(), "dump.rdb"))
		redis.Tell("CONFIG", "SET", "save", "")
	}},
	{"replica", "READONLY", func(redis *redistest.Server) { redis.Tell("REPLICAOF", "127.0.0.1", "1") },
		func(redis *redistest.Server) { redis.Tell("REPLICAOF", "NO", "ONE") }},
	{"commands taken away", "", func(redis *redistest.Server) { redis.Tell("ACL", "SETUSER", "authserver", "-@all") },
		func(redis *redistest.Server) { redis.Tell("ACL", "LOAD") }},
	{"user gone", "", func(redis *redistest.Server) { redis.Tell("ACL", "DELUSER", "authserver") },
		func(redis *redistest.Server) { redis.Tell("ACL", "LOAD") }},
	{"loading", "LOADING", load, loaded},
}

// load restarts a Redis so that it loads its data until loaded is called.
func load(redis *redistest.Server) {
	redis.Tell("DEBUG", "POPULATE", "6000", "filler", "2000") // two minutes of loading, unless it is mended
	redis.Tell("BGREWRITEAOF")                                // a file with them
	for strings.Contains(redis.Tell("INFO", "persistence"), "aof_rewrite_in_progress:1") {
		time.Sleep(10 * time.Millisecond)
	}
	redis.Kill()
	redis.RestartLoading("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
}

func loaded(redis *redistest.Server) { redis.Tell("CONFIG", "SET", "key-load-delay", "0") }

// While Redis refuses, whoever needs it is told to come back (503 with Retry-After),
// nobody is told that his token is no good, the balancer hears of it, keys and metadata
// are served; and afterwards all that was acknowledged is there, with no restart.
func TestRedisInTrouble(t *testing.T) {
	for _, test := range troubles {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			redis, base := troubledRedis(t)
			revoked := tokensOf(t, base)
			timetest.Await(t, "a revocation is acknowledged", func() bool { status, _ := asked(t, base, "/revoke", revoked); return status == 200 })
			token, unspent := tokensOf(t, base), tokensOf(t, base)
			test.make(redis)
			if test.answer != "" {
				timetest.Await(t, "Redis is in trouble", func() bool { return strings.Contains(redis.Tell("SET", "probe", "1"), test.answer) })
			}
			if status := statusOf(t, base+"/readyz"); status != 503 {
				t.Errorf("the balancer is told %d", status)
			}
			for path, token := range map[string]string{"/token": token, "/revoke": unspent} {
				if status, after := asked(t, base, path, token); status != 503 || after == "" {
					t.Errorf("%s: %d, Retry-After %q", path, status, after)
				}
			}
			if test.answer == "OOM" || test.answer == "MISCONF" { // it can be read (FT-14), unless it was left alone just now
				timetest.Await(t, "what is there can be read", func() bool { status, _ := asked(t, base, "/introspect", token); return status == 200 })
			}
			for _, path := range []string{"/.well-known/jwks.json", "/.well-known/openid-configuration", "/healthz"} {
				if status := statusOf(t, base+path); status != 200 {
					t.Errorf("%s: %d", path, status)
				}
			}
			test.mend(redis)
			timetest.Await(t, "the server recovers", func() bool { return statusOf(t, base+"/readyz") == 200 })
			for name, token := range map[string]string{"asked in vain": token, "revoked in vain": unspent} {
				if status := settled(t, base, token); status != 200 {
					t.Errorf("%s: %d", name, status)
				}
			}
			if status := settled(t, base, revoked); status != 400 {
				t.Errorf("a revoked token: %d", status)
			}
		})
	}
}

// A Redis that has forgotten its scripts is no trouble (ATTACKS FT-19): nobody notices.
func TestScriptsFlushed(t *testing.T) {
	redis, base := troubledRedis(t)
	token := tokensOf(t, base)
	redis.Tell("SCRIPT", "FLUSH")
	if status := settled(t, base, token); status != 200 {
		t.Error(status)
	}
}

// troubledRedis starts a server on a Redis as docs/operating.md wants it.
func troubledRedis(t *testing.T) (redis *redistest.Server, base string) {
	t.Helper()
	directory, port := t.TempDir(), freePort(t)
	users := filepath.Join(directory, "users.acl")
	line := strings.Replace(redistest.Recipe(t, "user authserver on "), "#<sha256>", ">secret", 1)
	if err := os.WriteFile(users, []byte("user default on nopass ~* &* +@all\n"+line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always", "--aclfile", users, "--enable-debug-command", "local")
	base = "http://localhost:" + port
	config := fmt.Sprintf(userConfig, port, port) + "store: redis://authserver:secret@" + redis.Addr + "\n"
	if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, directory, base, nil, "serve")
	return redis, base
}

func statusOf(t *testing.T, url string) int {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// asked presents a refresh token to an endpoint and returns the status and Retry-After.
func asked(t *testing.T, base, path, token string) (status int, after string) {
	t.Helper()
	form := tokenForm("refresh_token", "refresh_token", token, "token", token)
	request, err := http.NewRequest("POST", base+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("web", userSecret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode, response.Header.Get("Retry-After")
}

// settled presents a refresh token until the server has more to say than 503.
func settled(t *testing.T, base, token string) (status int) {
	t.Helper()
	timetest.Await(t, "the server is busy no more", func() bool { status, _, _ = refreshed(t, base, token); return status != 503 })
	return status
}
