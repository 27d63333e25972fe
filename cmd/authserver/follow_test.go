package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/verifier"
)

const apiConfig = `issuer: http://localhost:%[1]s
listen: localhost:%[1]s
metrics_listen: "off"
data: %[2]s
resources: [{identifier: https://api.example.com, scopes: [orders:read]}]
clients: [{client_id: service, client_secret: 0123456789abcdef0123456789abcdef, grant_types: [client_credentials], scope: orders:read}]
`

// A verifier follows the real server through kill -9 and restarts, of the server and
// of Redis: what was revoked before, during and after is refused, and a good token
// is accepted whenever the feed is there.
func TestVerifierFollowsThroughRestarts(t *testing.T) {
	for name, withRedis := range map[string]bool{"embedded": false, "Redis": true} {
		t.Run(name, func(t *testing.T) {
			directory, port := t.TempDir(), freePort(t)
			config := fmt.Sprintf(apiConfig, port, directory)
			var redis *redistest.Server
			if withRedis {
				redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
				config += "store: " + redis.URL() + "\n"
			}
			if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			issuer := "http://localhost:" + port
			server := start(t, directory, issuer, nil, "serve")
			v, err := verifier.New(t.Context(), verifier.Config{Issuer: issuer, Audience: "https://api.example.com", Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			good, first, second := serviceToken(t, issuer), serviceToken(t, issuer), serviceToken(t, issuer)
			for _, token := range []string{good, first, second} {
				becomes(t, v, token, "")
			}
			revokeToken(t, issuer, first)
			becomes(t, v, first, verifier.Revoked)
			server.Process.Kill()
			server.Wait()
			becomes(t, v, good, verifier.RevocationsUnavailable)
			start(t, directory, issuer, nil, "serve")
			revokeToken(t, issuer, second)
			becomes(t, v, second, verifier.Revoked)
			becomes(t, v, first, verifier.Revoked)
			becomes(t, v, good, "")
			if redis == nil {
				return
			}
			redis.Kill()
			becomes(t, v, good, verifier.RevocationsUnavailable) // nobody knows what other instances revoke
			becomes(t, v, first, verifier.Revoked)
			redis.Restart()
			becomes(t, v, good, "")
			becomes(t, v, second, verifier.Revoked)
		})
	}
}

// becomes waits until a token is refused for a reason, or accepted. No token that
// was once refused as revoked may be accepted again.
func becomes(t *testing.T, v *verifier.Verifier, token string, want verifier.Reason) {
	t.Helper()
	var got verifier.Reason
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		got = ""
		if _, err := v.Verify(t.Context(), token); err != nil {
			got = err.(*verifier.Error).Reason
		}
		if got == want {
			return
		}
		if want == "" && got != verifier.RevocationsUnavailable && got != verifier.KeysUnavailable {
			break
		}
	}
	t.Fatalf("refused for %q, want %q", got, want)
}

func askService(t *testing.T, endpoint string, form url.Values) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		request, err := http.NewRequest("POST", endpoint, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.SetBasicAuth("service", "0123456789abcdef0123456789abcdef")
		response, err := http.DefaultClient.Do(request)
		if err != nil && time.Now().Before(deadline) { // over a connection that was to a server before it was killed
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return string(body)
		}
		if response.StatusCode != http.StatusServiceUnavailable || time.Now().After(deadline) {
			t.Fatalf("%s: %s %s", endpoint, response.Status, body)
		}
	}
}

func serviceToken(t *testing.T, issuer string) string {
	t.Helper()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(askService(t, issuer+"/token", url.Values{"grant_type": {"client_credentials"}})), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Token
}

func revokeToken(t *testing.T, issuer, token string) {
	t.Helper()
	askService(t, issuer+"/revoke", url.Values{"token": {token}})
}
