package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"authserver/internal/intake"
	"authserver/internal/redistest"
	"authserver/internal/timetest"
)

const receiverConfig = `issuer: http://localhost:%[1]s
listen: localhost:%[1]s
metrics_listen: "off"
data: %[2]s
outbound_networks: [127.0.0.0/8]
receivers: [{name: siem, url: %[3]q, audience: https://siem.example.com, authorization_file: siem.secret}]
`

// A receiver that is down when a password is changed is told of it when it is back, of
// the sessions that this ended too, although the server, and Redis, were killed in
// between; with a signature of the issuer.
func TestReceiverThroughRestarts(t *testing.T) {
	for name, withRedis := range map[string]bool{"embedded": false, "Redis": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			up, refused, accepted := false, 0, make(map[string]string) // by jti
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				if !up || r.Header.Get("Authorization") != "Bearer s3cret" {
					refused++
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
				token, err := intake.Parse(string(body))
				if err != nil {
					t.Error(err)
					return
				}
				var claims struct {
					ID     string         `json:"jti"`
					Events map[string]any `json:"events"`
				}
				json.Unmarshal(token.Payload, &claims)
				for event := range claims.Events {
					accepted[claims.ID] = event[strings.LastIndexByte(event, '/')+1:] + " " + string(body)
				}
				w.WriteHeader(http.StatusAccepted)
			}))
			defer receiver.Close()
			directory, port := t.TempDir(), freePort(t)
			config := fmt.Sprintf(receiverConfig, port, directory, receiver.URL)
			var redis *redistest.Server
			if withRedis {
				redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
				config += "store: " + redis.URL() + "\n"
			}
			for file, text := range map[string]string{"authserver.yaml": config, "siem.secret": "Bearer s3cret\n"} {
				if err := os.WriteFile(filepath.Join(directory, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			issuer := "http://localhost:" + port
			server := start(t, directory, issuer, nil, "serve")
			operate := func(args ...string) {
				t.Helper()
				command := exec.Command(binary, args...)
				command.Dir = directory
				if output, err := command.CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", args, err, output)
				}
			}
			operate("user", "add", "alice", "--password-hash", demoAlice)
			operate("user", "password", "alice", "--password-hash", demoBob, "--yes")
			until := func(what string, is func() bool) {
				t.Helper()
				if !timetest.Until(func() bool { mu.Lock(); defer mu.Unlock(); return is() }) {
					t.Fatalf("never: %s\n%s", what, server.text())
				}
			}
			until("both were tried again and again", func() bool { return refused >= 6 })
			server.Process.Kill()
			server.Wait()
			if redis != nil {
				redis.Kill()
				redis.Restart()
			}
			mu.Lock()
			up = true
			mu.Unlock()
			server = start(t, directory, issuer, nil, "serve")
			until("told of both", func() bool { return len(accepted) >= 2 })
			response, err := http.Get(issuer + "/.well-known/jwks.json")
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			published, _ := io.ReadAll(response.Body)
			keys, _, err := intake.ParseKeySet(published)
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			told := make(map[string]int)
			for _, one := range accepted {
				event, raw, _ := strings.Cut(one, " ")
				told[event]++
				token, err := intake.Parse(raw)
				if err != nil {
					t.Fatal(err)
				}
				verified := false
				for _, key := range keys {
					verified = verified || key.ID == token.KeyID && token.Verify(key) == nil
				}
				if !verified || !token.HasType("secevent+jwt") {
					t.Errorf("not signed by the issuer: %s", raw)
				}
			}
			if told["session-revoked"] != 1 || told["credential-change"] != 1 {
				t.Errorf("told of %v", told)
			}
		})
	}
}
