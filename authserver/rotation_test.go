package authserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/redistest"
	"authserver/internal/timetest"
	"authserver/keys"
	"authserver/store/redisstore"

	"github.com/go-jose/go-jose/v4"
)

// hasty are keys that rotate every ten seconds. Nothing in it is shorter than the
// promises allow.
func hasty(t *testing.T, redis, issuer, master string) (keys.Config, *redisstore.Store) {
	opened, err := redisstore.Open(t.Context(), redisstore.Options{URL: redis, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.ParseMasterKey([]byte(master))
	if err != nil {
		t.Fatal(err)
	}
	return keys.Config{
		Store: authserver.KeyStore(opened), MasterKey: key, Issuer: issuer, Algorithms: []string{"ES256"},
		CacheFor: time.Second, PublishBefore: 6 * time.Second, RotateEvery: 10 * time.Second,
		TokenLifetime: time.Minute, RefreshLifetime: 2 * time.Minute,
		Lease: 3 * time.Second, PollEvery: 100 * time.Millisecond, Skew: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, opened
}

// TestServerToKill is one of the servers of TestThreeServersRotate, in a process of
// its own; else nothing.
func TestServerToKill(t *testing.T) {
	redis := os.Getenv("AUTHSERVER_TEST_ROTATING")
	if redis == "" {
		t.Skip("runs as a part of TestThreeServersRotate")
	}
	config, opened := hasty(t, redis, os.Getenv("AUTHSERVER_TEST_ISSUER"), os.Getenv("AUTHSERVER_TEST_MASTER"))
	manager, err := keys.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	go manager.Run(t.Context())
	serverConfig := authservertest.Config(config.Issuer)
	serverConfig.Store, serverConfig.Keys, serverConfig.Logger = opened, manager, config.Logger
	serverConfig.Tokens.Access, serverConfig.Tokens.ID = time.Minute, time.Minute
	server, err := authserver.New(serverConfig)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("serving", listener.Addr())
	t.Fatal(http.Serve(listener, server.Handler()))
}

// member is one server of the three.
type member struct {
	process *exec.Cmd
	url     atomic.Pointer[string]
}

func (m *member) start(t *testing.T, environment []string) {
	m.process = exec.Command(os.Args[0], "-test.run=^TestServerToKill$", "-test.v")
	m.process.Env = append(os.Environ(), environment...)
	output, err := m.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.process.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
			url := "http://" + address
			m.url.Store(&url)
			go io.Copy(io.Discard, output)
			return
		}
	}
	t.Fatal("a server did not start")
}

func (m *member) kill() {
	m.url.Store(nil)
	m.process.Process.Kill()
	m.process.Wait()
}

// resourceServer verifies with a key set that it holds as long as it may.
type resourceServer struct {
	jwks  jose.JSONWebKeySet
	fresh time.Time
}

func (r *resourceServer) verify(url, token string) error {
	if time.Now().After(r.fresh) {
		asked := time.Now()
		response, err := http.Get(url + "/.well-known/jwks.json")
		if err != nil {
			return nil // it was killed; the next one answers
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return nil // likewise
		}
		var maxAge int
		if _, err := fmt.Sscanf(response.Header.Get("Cache-Control"), "public, max-age=%d", &maxAge); err != nil {
			maxAge = 0
		}
		if err := json.Unmarshal(body, &r.jwks); err != nil {
			return err
		}
		r.fresh = asked.Add(time.Duration(maxAge) * time.Second)
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	kid := signed.Signatures[0].Header.KeyID
	found := r.jwks.Key(kid)
	if len(found) != 1 {
		return fmt.Errorf("unknown kid %s", kid)
	}
	_, err = signed.Verify(found[0])
	return err
}

// FT-23, FT-25: three servers on one Redis rotate under load. Each time one of them
// is killed as the rotation is due. No request fails, and the log has one history.
func TestThreeServersRotate(t *testing.T) {
	t.Parallel() // most of it is waiting
	redis := redistest.Start(t)
	master, err := keys.NewMasterKey()
	if err != nil {
		t.Fatal(err)
	}
	const issuer = "https://three.example"
	environment := []string{"AUTHSERVER_TEST_ROTATING=" + redis.URL(), "AUTHSERVER_TEST_ISSUER=" + issuer, "AUTHSERVER_TEST_MASTER=" + string(master.Text())}
	members := make([]*member, 3)
	for i := range members {
		members[i] = new(member)
		members[i].start(t, environment)
		t.Cleanup(func() { members[i].process.Process.Kill(); members[i].process.Wait() })
	}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var kids sync.Map
	var count atomic.Int64
	for worker := range 4 {
		load.Go(func() {
			var verifier resourceServer
			for n := worker; ctx.Err() == nil; n++ {
				url := members[n%3].url.Load()
				if url == nil {
					continue
				}
				request, _ := http.NewRequest(http.MethodPost, *url+"/token", strings.NewReader("grant_type=client_credentials"))
				request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				request.SetBasicAuth(authservertest.ServiceID, authservertest.Secret)
				response, err := http.DefaultClient.Do(request)
				if err != nil {
					continue // killed meanwhile: a balancer asks another one
				}
				var body struct {
					AccessToken string `json:"access_token"`
				}
				decodeErr := json.NewDecoder(response.Body).Decode(&body)
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					t.Errorf("a request failed: %d, after %s", response.StatusCode, time.Now())
					continue
				}
				if decodeErr != nil {
					continue
				}
				if other := members[(n+1)%3].url.Load(); other != nil {
					if err := verifier.verify(*other, body.AccessToken); err != nil {
						t.Errorf("a token of one server with the key set of another: %v", err)
					}
				}
				kids.Store(kidOf(t, body.AccessToken), true)
				count.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	config, opened := hasty(t, redis.URL(), issuer, string(master.Text()))
	defer opened.Close()
	for round := range 2 {
		watching, err := keys.Open(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		due := watching.Plan()[0].At
		for _, p := range watching.Plan() {
			if p.To == "active" && p.Ring == "ES256" {
				due = p.At
			}
		}
		time.Sleep(time.Until(due) + time.Duration(round*20)*time.Millisecond)
		members[round].kill()
		time.Sleep(2 * time.Second)
		members[round].start(t, environment)
	}
	stop()
	load.Wait()
	manager, err := keys.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	timetest.AwaitNil(t, func() error { // whoever was killed before it wrote the log is helped after a lease
		report, err := manager.VerifyLog(t.Context())
		if err == nil && len(report.Problems) > 0 {
			err = fmt.Errorf("the key log: %+v", report.Problems)
		}
		return err
	})
	entries, err := manager.Log(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var rotated []string
	for _, e := range entries {
		if e.Ring == "ES256" && e.To == "active" {
			rotated = append(rotated, e.KeyID)
		}
	}
	t.Logf("%d tokens; %d keys were taken into use; %d entries", count.Load(), len(rotated), len(entries))
	// On a slow machine keys are taken into use before the load begins, and after its end.
	signs := func(kid string) bool { _, found := kids.LoadAndDelete(kid); return found }
	first := slices.IndexFunc(rotated, signs)
	signed := 1
	for ; first >= 0 && first+signed < len(rotated) && signs(rotated[first+signed]); signed++ {
	}
	kids.Range(func(kid, _ any) bool {
		t.Errorf("%v has signed, and is not one of those that were taken into use one after another: %v", kid, rotated)
		return true
	})
	if first < 0 || signed < 3 {
		t.Errorf("of the keys that were taken into use, %v, %d have signed, want 3 or more", rotated, signed)
	}
}
