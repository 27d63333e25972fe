package authserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
	"authserver/store/redisstore"
)

// instancesOn returns what starts instances on one Redis, each with a connection and a
// key manager of its own.
func instancesOn(t *testing.T, address string, configure func(*Config)) func() *browser {
	t.Helper()
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	return func() *browser {
		t.Helper()
		opened, err := redisstore.Open(t.Context(), redisstore.Options{URL: "redis://" + address, Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { opened.Close() })
		return newBrowser(t, browserServerWithKeys(t, func(c *Config) {
			c.Store = opened
			if configure != nil {
				configure(c)
			}
		}, func(c *keys.Config) { c.Store, c.MasterKey, c.Algorithms = KeyStore(opened), master, []string{"ES256"} }))
	}
}

// ATTACKS AC-03: of 200 parallel redemptions of one code at two instances on one Redis
// one succeeds. What it got ends where the others could have redeemed the code
// themselves, and only there.
func TestAttackAC03(t *testing.T) {
	start := instancesOn(t, redistest.Start(t).Addr, nil)
	instances := []*browser{start(), start()}
	instances[0].signIn("alice-1")
	for name, test := range map[string]struct {
		others []string // parameters of all but one
		lives  bool
	}{
		"who knows the verifier": {nil, false},
		"who does not":           {[]string{"code_verifier", strings.Repeat("v", 43)}, true},
	} {
		code := instances[0].code()
		answers := make([]tokenAnswer, 200)
		var wait sync.WaitGroup
		for i := range answers {
			var changes []string
			if i != len(answers)/2 {
				changes = test.others
			}
			wait.Go(func() { answers[i] = instances[i%2].exchange("web", code, changes...) })
		}
		wait.Wait()
		successes := 0
		for _, a := range answers {
			switch {
			case a.status == 200:
				successes++
				for _, at := range instances {
					if at.active("web", a.text("access_token")) != test.lives || at.active("web", a.text("refresh_token")) != test.lives {
						t.Errorf("%s: the tokens live: %t", name, !test.lives)
					}
				}
			case a.text("error") != "invalid_grant":
				t.Errorf("%s: %d %v", name, a.status, a.body)
			}
		}
		if successes != 1 {
			t.Errorf("%s: %d redemptions succeeded", name, successes)
		}
	}
}

func (b *browser) renew(token string) tokenAnswer {
	b.t.Helper()
	return b.token("web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// ATTACKS RT-04: 200 parallel refreshes with one token at two instances on one Redis
// get one successor. With no retry window one gets it, and since the others may be a
// thief's, the grant ends.
func TestAttackRT04(t *testing.T) {
	address := redistest.Start(t).Addr
	for _, window := range []time.Duration{time.Minute, 0} {
		start := instancesOn(t, address, func(c *Config) { c.Tokens.RetryWindow = &window })
		instances := []*browser{start(), start()}
		instances[0].signIn("alice-1")
		first := instances[0].exchange("web", instances[0].code()).text("refresh_token")
		answers := make([]tokenAnswer, 200)
		var wait sync.WaitGroup
		for i := range answers {
			wait.Go(func() { answers[i] = instances[i%2].renew(first) })
		}
		wait.Wait()
		successors := make(map[string]int)
		for _, a := range answers {
			if a.status == 200 {
				successors[a.text("refresh_token")]++
			} else if window > 0 || a.text("error") != "invalid_grant" {
				t.Errorf("window %s: %d %v", window, a.status, a.body)
			}
		}
		if len(successors) != 1 {
			t.Errorf("window %s: successors %v", window, successors)
		}
		for successor, n := range successors {
			if window == 0 && n != 1 {
				t.Errorf("no window, and %d got the successor", n)
			}
			if a := instances[1].renew(successor); (a.status == 200) != (window > 0) {
				t.Errorf("window %s: the successor: %d %v", window, a.status, a.body)
			}
		}
		address = redistest.Start(t).Addr // keys of their own
	}
}

// ATTACKS RT-05: the same while one answer of Redis in twenty is lost after the command
// ran. Whoever is told to come again gets what the others got; nobody is signed out.
func TestAttackRT05(t *testing.T) {
	link := redistest.StartLink(t, redistest.Start(t))
	start := instancesOn(t, link.Addr, nil)
	instances := []*browser{start(), start()}
	instances[0].signIn("alice-1")
	token := instances[0].exchange("web", instances[0].code()).text("refresh_token")
	link.Lose(20)
	const generations, parallel = 10, 20
	var again int
	for generation := range generations {
		answers := make([]tokenAnswer, parallel)
		retries := make([]int, parallel)
		var wait sync.WaitGroup
		for i := range answers {
			wait.Go(func() {
				for deadline := time.Now().Add(30 * time.Second); ; retries[i]++ {
					answers[i] = instances[(i+retries[i])%2].renew(token)
					if answers[i].status != 503 || time.Now().After(deadline) {
						return
					}
				}
			})
		}
		wait.Wait()
		for i, a := range answers {
			again += retries[i]
			if a.status != 200 || a.text("refresh_token") != answers[0].text("refresh_token") {
				t.Fatalf("generation %d: %d %v, another got %v", generation, a.status, a.body, answers[0].body)
			}
		}
		token = answers[0].text("refresh_token")
	}
	if link.Lost.Load() == 0 {
		t.Error("no answer was lost")
	}
	t.Logf("%d answers of Redis were lost, %d requests repeated", link.Lost.Load(), again)
}

// ATTACKS RT-21: a refresh token of a client that does not rotate works a thousand times.
// Where rotation is switched on, it works for the retry window beside its successor, and
// where it is switched off, a client that lost its last answer gets the token that stays.
func TestAttackRT21(t *testing.T) {
	rotation := func(policy string) func(*Config) {
		return func(c *Config) { c.Clients[0].RefreshTokenRotation = policy }
	}
	s := browserServer(t, rotation(rotationNever))
	b := signedIn(t, s)
	token := b.exchange("web", b.code()).text("refresh_token")
	works := func(when string) (successor string) {
		t.Helper()
		a := b.renew(token)
		if a.status != 200 {
			t.Fatalf("%s: %d %v", when, a.status, a.body)
		}
		return a.text("refresh_token")
	}
	c, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 1000 { // below the endpoint, which would sign as many
		a, err := refreshTokenGrant{s}.Authorize(t.Context(), tokenRequest{client: c, form: form{url.Values{"refresh_token": {token}}}})
		if err != nil || a.Refresh != nil {
			t.Fatalf("refresh %d: %v %v", n, a.Refresh, err)
		}
	}
	if works("without rotation") != "" {
		t.Error("it rotates")
	}
	rotating := browserServerWith(t, s, rotation(rotationAlways))
	b.server = rotating
	second := works("with rotation")
	later := func(since time.Duration) *Server {
		rotating.grants.Store = fast{Store: s.store, held: since}
		return rotating
	}
	for _, since := range []time.Duration{0, 31 * time.Second, 40 * time.Second} { // of a minute: what is left is for a slow machine
		b.server = later(since)
		if again := works(since.String() + " later"); again != second || second == "" {
			t.Errorf("%s later another successor", since)
		}
	}
	b.server = s
	if again := works("without rotation again"); again != second {
		t.Errorf("the client is left with a token that is theft in a minute: %q", again)
	}
	token = second
	if works("the token that stays") != "" {
		t.Error("it rotates")
	}
}

// ATTACKS RT-06: what was used before Redis was killed is theft afterwards, at an instance
// that was there before and at one that has started since. What a failover keeps: TestFailover
// of redisstore.
func TestAttackRT06(t *testing.T) {
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	start := instancesOn(t, redis.Addr, nil)
	before := start()
	before.signIn("alice-1")
	type chain struct{ first, last tokenAnswer }
	chains := make([]chain, 2)
	for i := range chains {
		chains[i].first = before.exchange("web", before.code())
		second := before.renew(chains[i].first.text("refresh_token"))
		chains[i].last = before.renew(second.text("refresh_token"))
		if chains[i].last.status != 200 {
			t.Fatal(chains[i].last.body)
		}
	}
	redis.Kill()
	redis.Restart()
	renewed := func(at *browser, token string) (a tokenAnswer) {
		timetest.Await(t, "Redis is back", func() bool { a = at.renew(token); return a.status != 503 })
		return a
	}
	for i, at := range []*browser{before, start()} {
		c := chains[i]
		next := renewed(at, c.last.text("refresh_token"))
		if next.status != 200 {
			t.Fatalf("instance %d: the last token: %d %v", i, next.status, next.body)
		}
		if a := renewed(at, c.first.text("refresh_token")); a.status != 400 || a.text("error") != "invalid_grant" {
			t.Errorf("instance %d: the first token: %d %v", i, a.status, a.body)
		}
		if a := renewed(at, next.text("refresh_token")); a.status != 400 || a.text("error") != "invalid_grant" || at.active("web", next.text("access_token")) {
			t.Errorf("instance %d: the grant outlives the theft: %d %v", i, a.status, a.body)
		}
	}
}

// ATTACKS IR-06: what one instance has revoked, another calls inactive soon, and ever after.
func TestAttackIR06(t *testing.T) {
	start := instancesOn(t, redistest.Start(t).Addr, nil)
	a, b := start(), start()
	a.signIn("alice-1")
	for _, member := range []string{"access_token", "refresh_token"} {
		tokens := a.exchange("web", a.code())
		token := tokens.text(member)
		for range 3 {
			if !b.active("web", token) || !a.active("web", token) {
				t.Fatalf("a good %s is not active", member)
			}
		}
		if revoked := a.ask("POST", "/revoke", "web", url.Values{"token": {token}}); revoked.status != 200 {
			t.Fatal(revoked.status, revoked.body)
		}
		if a.active("web", token) {
			t.Errorf("the %s is active where it was revoked", member)
		}
		timetest.Await(t, "the "+member+" has ended at another instance", func() bool { return !b.active("web", token) })
		for range 100 {
			if a.active("web", token) || b.active("web", token) {
				t.Fatalf("the %s is active again", member)
			}
		}
		if late := start(); late.active("web", token) {
			t.Errorf("the %s is active at an instance that has just started", member)
		}
	}
}

// ATTACKS RT-12: a client that rotates all the time is refused when the grant is as old as
// it may get, and one that does not come is refused when it has been away for as long as
// it may be.
func TestAttackRT12(t *testing.T) {
	for name, test := range map[string]struct {
		idle, most, pause time.Duration
	}{
		"the grant's end": {time.Hour, 3 * time.Second, 20 * time.Millisecond},
		"idle":            {2 * time.Second, time.Hour, 3200 * time.Millisecond}, // times are whole seconds
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := browserServer(t, nil)
			b := signedIn(t, s)
			code := b.code()
			s.tokens.RefreshIdle, s.tokens.RefreshMax = test.idle, test.most
			begun := time.Now()
			a := b.exchange("web", code)
			refreshes := 0
			for ; a.status == 200; refreshes++ {
				if time.Since(begun) > time.Minute {
					t.Fatal("it lives on and on")
				}
				time.Sleep(test.pause)
				a = b.renew(a.text("refresh_token"))
			}
			if a.text("error") != "invalid_grant" {
				t.Errorf("%d %v", a.status, a.body)
			}
			if lived := time.Since(begun); test.pause < time.Second && lived < test.most-time.Second {
				t.Errorf("it has lived for %s and %d refreshes", lived, refreshes)
			}
		})
	}
}

// ATTACKS RT-22: a grant lives if it is newer than the end of all of its client, than that
// of all of its user, and than what the operator has accepted of the store: whichever of
// them is the newest counts.
func TestAttackRT22(t *testing.T) {
	for name, ends := range map[string][2]string{
		"the client's, then all": {"client", "all"}, "all, then the client's": {"all", "client"},
		"the client's, then the user's": {"client", "user"}, "the user's, then the client's": {"user", "client"},
		"the user's, then all": {"user", "all"}, "all, then the user's": {"all", "user"},
	} {
		var notBefore int64
		s := browserServer(t, func(c *Config) { c.NotBefore = func() int64 { return notBefore } })
		b := newBrowser(t, s)
		end := func(level string) {
			var err error
			switch level {
			case "client":
				err = s.endClient(t.Context(), "web", "test")
			case "user":
				err = s.endSubject(t.Context(), "alice-1", "test")
			default:
				notBefore = time.Now().Unix() + 1
				s.clients.lookups, s.users.lookups = remember(s.clients.load), remember(s.users.load)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var tokens []tokenAnswer
		for step := range 3 {
			b.signIn("alice-1")
			a := b.exchange("web", b.code())
			if a.status != 200 {
				t.Fatalf("%s, step %d: %v", name, step, a.body)
			}
			tokens = append(tokens, a)
			if step < 2 {
				end(ends[step])
			}
		}
		for step, a := range tokens {
			for _, member := range []string{"access_token", "refresh_token"} {
				if b.active("web", a.text(member)) != (step == 2) {
					t.Errorf("%s: the %s of before end %d is active: %t", name, member, step, step != 2)
				}
			}
			if renewed := b.renew(a.text("refresh_token")); (renewed.status == 200) != (step == 2) {
				t.Errorf("%s: refreshing what is of before end %d: %d %v", name, step, renewed.status, renewed.body)
			}
		}
	}
}

// ATTACKS CA-17: an assertion is used once: at the same instance, at another one, after
// Redis was killed, and at an instance that has started since.
func TestAttackCA17(t *testing.T) {
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	partner, client := newPartner(t)
	start := instancesOn(t, redis.Addr, func(c *Config) { c.Clients = append(c.Clients, client) })
	a, b := start(), start()
	first, second := partner.assertion(nil), partner.assertion(nil)
	if got := a.present(first); got.status != 200 {
		t.Fatal(got.body)
	}
	if got := b.present(second); got.status != 200 {
		t.Fatal(got.body)
	}
	refusedEverywhere := func(when string, at ...*browser) {
		t.Helper()
		for i, instance := range at {
			for _, assertion := range []string{first, second} {
				got := instance.present(assertion)
				for deadline := time.Now().Add(30 * time.Second); got.status == 503 && time.Now().Before(deadline); got = instance.present(assertion) {
					time.Sleep(20 * time.Millisecond) // Redis is not back yet
				}
				if got.status != 401 || got.text("error") != "invalid_client" {
					t.Errorf("%s, instance %d: %d %v", when, i, got.status, got.body)
				}
			}
		}
	}
	refusedEverywhere("at once", a, b)
	redis.Kill()
	redis.Restart()
	refusedEverywhere("after a restart of Redis", a, b, start())
	if got := a.present(partner.assertion(map[string]any{"jti": nil})); got.text("error") != "invalid_client" {
		t.Errorf("no jti: %v", got.body)
	}
	if got := a.present(partner.assertion(nil)); got.status != 200 {
		t.Errorf("a new assertion: %v", got.body)
	}
}

// Likewise when the embedded store, and so the server, was closed and opened again.
func TestAssertionsAfterARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store.db")
	partner, client := newPartner(t)
	assertion := partner.assertion(nil)
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{200, 401, 401} {
		opened, err := boltstore.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		b := newBrowser(t, browserServerWithKeys(t, func(c *Config) { c.Store, c.Clients = opened, append(c.Clients, client) },
			func(c *keys.Config) { c.MasterKey, c.Algorithms = master, []string{"ES256"} }))
		if got := b.present(assertion); got.status != want {
			t.Errorf("%d %v, want %d", got.status, got.body, want)
		}
		if err := opened.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// ATTACKS AC-10, RT-23, LG-04: neither store, nor a backup of the embedded one, holds a
// code, a token, a session's secret, a client's secret or a private key that could be used.
func TestAttackLG04(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (opened store.Store, dump func() []byte){
		"embedded": func(t *testing.T) (store.Store, func() []byte) {
			directory := t.TempDir()
			opened, err := boltstore.Open(filepath.Join(directory, "store.db"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { opened.Close() })
			return opened, func() []byte {
				var backup bytes.Buffer
				if err := opened.Backup(t.Context(), &backup); err != nil {
					t.Fatal(err)
				}
				return append(filesIn(t, directory), backup.Bytes()...)
			}
		},
		"Redis": func(t *testing.T) (store.Store, func() []byte) { // its log holds all that was ever written
			redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
			opened, err := redisstore.Open(t.Context(), redisstore.Options{URL: redis.URL(), Timeout: 10 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { opened.Close() })
			return opened, func() []byte { return filesIn(t, redis.Dir()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			opened, dump := open(t)
			s := browserServerWithKeys(t, func(c *Config) { c.Store = opened }, func(c *keys.Config) {
				c.Store, c.Algorithms = KeyStore(opened), []string{"ES256"}
			})
			b := signedIn(t, s)
			private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.keys.Import(t.Context(), keys.By{Caller: "test", Reason: "test"}, "ES256", private); err != nil {
				t.Fatal(err)
			}
			scalar, err := private.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			code := b.code()
			first := b.exchange("web", code)
			second := b.renew(first.text("refresh_token"))
			if second.status != 200 {
				t.Fatal(second.body)
			}
			b.ask("POST", "/revoke", "web", url.Values{"token": {first.text("access_token")}})
			secrets := map[string]string{"the code": code, "a client's secret": testSecret, "a private key": string(scalar)}
			for _, member := range []string{"access_token", "refresh_token", "id_token"} {
				for _, token := range []string{first.text(member), second.text(member)} {
					if token != "" {
						secrets[member+" "+token] = token[strings.LastIndexByte(token, '.')+1:]
					}
				}
			}
			for cookie, value := range b.cookies { // before the dot is what tokens tell, too
				secrets["cookie "+cookie] = value[strings.LastIndexByte(value, '.')+1:]
			}
			made, secret, err := s.addClient(t.Context(), Client{ClientID: "added", GrantTypes: []string{"client_credentials"}}, store.Forever)
			if err != nil || len(secret) < 43 {
				t.Fatalf("a client with the secret %q: %v", secret, err)
			}
			secrets["a generated secret"] = secret
			text := dump()
			if !bytes.Contains(text, []byte("spent/")) || !bytes.Contains(text, []byte("client/"+made.ClientID)) {
				t.Fatalf("%d bytes hold not what the server stores", len(text))
			}
			for name, secret := range secrets {
				raw, _ := decodeSealed(secret)
				if bytes.Contains(text, []byte(secret)) || len(raw) >= 16 && bytes.Contains(text, raw) {
					t.Errorf("the store holds %s", name)
				}
			}
		})
	}
}

func filesIn(t *testing.T, directory string) (all []byte) {
	t.Helper()
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all = append(all, text...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
