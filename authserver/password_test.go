package authserver_test

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

func guess(t *testing.T, s *authservertest.Server, username, password string) answer {
	return post(t, s.Issuer+"/token", web, form("grant_type", "password", "username", username, "password", password))
}

// The same answer for unknown users (ATTACKS BF-06), and one counter for all
// spellings of an account (BF-02) that slows guessing down.
func TestGuessingIsSlowedDown(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	known, unknown := guess(t, s, "alice", "wrong"), guess(t, s, "mallory", "wrong")
	if known.status != unknown.status || known.untraced() != unknown.untraced() {
		t.Errorf("known: %s, unknown: %s", known.raw, unknown.raw)
	}
	for i, spelling := range []string{"Alice", " alice", "ALICE ", "alice", "alice"} {
		a := guess(t, s, spelling, "wrong "+strconv.Itoa(i))
		if a.status != 400 {
			t.Errorf("guess %d: %d %s", i+2, a.status, a.raw)
		}
	}
	// However slow this test is, one of the waits, each twice as long as the one before, is not over.
	for began := time.Now(); !authserver.HoldAccount(t, s.Store, "alice"); guess(t, s, "alice", "wrong") {
		if time.Since(began) > time.Minute {
			t.Fatal("guessing is not slowed down")
		}
	}
	a := guess(t, s, "alice", authservertest.Password)
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); a.status != 429 || err != nil || seconds < 1 {
		t.Errorf("the right password during the wait: %d %s, Retry-After %q", a.status, a.raw, a.header.Get("Retry-After"))
	}
}

// Success forgets the failures before it.
func TestSuccessForgetsFailures(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	for range 3 {
		for range 4 {
			guess(t, s, "alice", "wrong")
		}
		if a := guess(t, s, "alice", authservertest.Password); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.raw)
		}
	}
}

// ATTACKS BF-01: parallel guesses do not outrun the count.
func TestParallelGuesses(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	began := time.Now()
	var looked atomic.Int64
	var wait sync.WaitGroup
	for range 40 {
		wait.Go(func() {
			if guess(t, s, "alice", "wrong").text("error") == "invalid_grant" {
				looked.Add(1)
			}
		})
	}
	wait.Wait()
	// Five are free; then one gets through, and one more after each delay that has passed.
	most, passed := int64(6), time.Second
	for delay := time.Second; passed <= time.Since(began); delay *= 2 {
		most++
		passed += 2 * delay
	}
	if n := looked.Load(); n < 1 || n > most {
		t.Errorf("%d of 40 parallel guesses were looked at, of which %d may be", n, most)
	}
}

func TestPasswordHashes(t *testing.T) {
	phc, err := authserver.HashPassword("correct horse")
	if err != nil || !strings.HasPrefix(phc, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatal(phc, err)
	}
	if _, err := authserver.HashPassword(""); err == nil {
		t.Error("an empty password was hashed")
	}
	config := authservertest.Config("https://auth.example.com")
	for hash, want := range map[string]string{
		"":                                              "is missing",
		"hunter2":                                       "not a PHC string",
		"$2b$12$abcdefghijklmnopqrstuv":                 "not supported, argon2id is",
		"$argon2i$v=19$m=1,t=1,p=1$a$b":                 "not supported, argon2id is",
		"$argon2id$v=16$m=64,t=1,p=1$a$b":               "looks like",
		"$argon2id$v=19$m=64,t=1$a$b":                   "parameters",
		"$argon2id$v=19$m=64,t=1,p=1$!!$!!":             "base64",
		strings.Replace(phc, "t=2", "t=99", 1):          "out of bounds",
		strings.Replace(phc, "m=19456", "m=4194304", 1): "out of bounds",
	} {
		config.Users[0].PasswordHash = hash
		problems := config.Check()
		if len(problems) != 1 || problems[0].Key != "users[0].password_hash" || !strings.Contains(problems[0].Text, want) {
			t.Errorf("%q: %v, want %q", hash, problems, want)
		}
	}
}
