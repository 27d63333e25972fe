package main

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"authserver/internal/redistest"
	"authserver/internal/timetest"

	"golang.org/x/sys/unix"
)

// ATTACKS FT-16: Redis's append-only file cannot grow, as on a full disk. Whoever needs it to
// is told to come back, and nobody that his token is no good; with `appendfsync always` Redis
// ends, so that what it could not write is not acknowledged. When there is room again
// everybody goes on, and what was acknowledged is there, also after a crash.
func TestAppendOnlyFileCannotGrow(t *testing.T) {
	for _, fsync := range []string{"always", "everysec"} {
		t.Run(fsync, func(t *testing.T) {
			t.Parallel()
			// A write beyond the limit fails then, instead of ending the process.
			ignoring := []string{"sh", "-c", `trap "" XFSZ; exec "$0" "$@"`}
			redis := redistest.StartUnder(t, ignoring, "--appendonly", "yes", "--appendfsync", fsync)
			p := onRedis(t, redis.Addr, nil)
			base := p.url
			var acknowledged []string
			revoke := func(token string) (status int) {
				status, after := asked(t, base, "/revoke", token)
				switch {
				case status == 200:
					acknowledged = append(acknowledged, token)
				case status != 503 || after == "":
					t.Errorf("a revocation: %d, Retry-After %q", status, after)
				}
				return status
			}
			first := tokensOf(t, base)
			timetest.Await(t, "a revocation is acknowledged", func() bool { return revoke(first) == 200 })
			kept := tokensOf(t, base)
			var unspent []string
			for range 3 {
				unspent = append(unspent, tokensOf(t, base))
			}
			pid, err := strconv.Atoi(regexp.MustCompile(`process_id:(\d+)`).FindStringSubmatch(redis.Tell("INFO", "server"))[1])
			if err != nil {
				t.Fatal(err)
			}
			var before unix.Rlimit
			if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &before); err != nil {
				t.Fatal(err)
			}
			if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1, Max: before.Max}, nil); err != nil {
				t.Fatal(err)
			}
			revoke(unspent[0]) // with everysec, what comes in until Redis notices is acknowledged, and written later
			timetest.Await(t, "the balancer is told", func() bool { return statusOf(t, base+"/readyz") == 503 })
			for n, path := range []string{"/revoke", "/token"} {
				if status, after := asked(t, base, path, unspent[n+1]); status != 503 || after == "" {
					t.Errorf("%s: %d, Retry-After %q", path, status, after)
				}
			}
			if status := statusOf(t, base+"/.well-known/jwks.json"); status != 200 {
				t.Errorf("the key set: %d", status)
			}

			if fsync == "always" {
				redis.Await()
			} else {
				if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &before, nil); err != nil {
					t.Fatal(err)
				}
				timetest.Await(t, "Redis writes again", func() bool { return strings.Contains(redis.Tell("INFO", "persistence"), "aof_last_write_status:ok") })
				timetest.Await(t, "the server recovers", func() bool { return statusOf(t, base+"/readyz") == 200 })
				redis.Kill() // what is written outlives it
			}
			redis.Restart()
			timetest.Await(t, "the server recovers", func() bool { return statusOf(t, base+"/readyz") == 200 })
			for n, token := range acknowledged {
				if status := settled(t, base, token); status != 400 {
					t.Errorf("revoked token %d of %d: %d", n+1, len(acknowledged), status)
				}
			}
			for name, token := range map[string]string{"left alone": kept, "revoked in vain": unspent[1], "refreshed in vain": unspent[2]} {
				if status := settled(t, base, token); status != 200 {
					t.Errorf("%s: %d", name, status)
				}
			}
		})
	}
}
