package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/redistest"
	"authserver/internal/timetest"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// report is what a relying party answers at the end.
type report struct {
	Claims    map[string]any `json:"claims"`
	UserInfo  map[string]any `json:"userinfo"`
	Refreshed bool           `json:"refreshed"`
}

const scope = "openid profile email offline_access orders:read"

// Every relying party completes a sign-in: a first one with the pages, and a second
// one by single sign-on.
func TestRelyingParties(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{Algorithms: []string{"ES256", "RS256"}, Configure: func(c *authserver.Config) {
		client := authserver.Client{ClientName: "Interop", GrantTypes: []string{"authorization_code", "refresh_token"}, Scope: scope,
			RedirectURIs: []string{"http://127.0.0.1/callback"}}
		confidential, public := client, client
		confidential.ClientID, confidential.ClientSecret = "rp", authservertest.Secret
		public.ClientID, public.TokenEndpointAuthMethod = "rp-public", "none"
		c.Clients = append(c.Clients, confidential, public)
		c.Users[0].Claims = map[string]any{"email": "alice@example.com", "email_verified": true, "name": "Alice Liddell"}
	}})
	for name, start := range map[string]func(*testing.T, *authservertest.Server) (url string){
		"golang.org/x/oauth2 with go-oidc": startGo,
		"openid-client": func(t *testing.T, s *authservertest.Server) string {
			return run(t, s, "rp", node(t), filepath.Join("node", "openid-client.js"))
		},
		"oauth4webapi": func(t *testing.T, s *authservertest.Server) string {
			return run(t, s, "rp-public", node(t), filepath.Join("node", "oauth4webapi.js"))
		},
		"Authlib": func(t *testing.T, s *authservertest.Server) string {
			return run(t, s, "rp", python(t), filepath.Join("authlib", "app.py"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := start(t, s)
			visitor := authservertest.NewVisitor(t)
			for range 2 {
				got := visit(t, visitor, address+"/login")
				if !got.Refreshed {
					t.Errorf("not refreshed: %+v", got)
				}
			}
		})
	}
	for _, mode := range []string{"query", "form_post"} {
		t.Run("mod_auth_openidc "+mode, func(t *testing.T) {
			visit(t, authservertest.NewVisitor(t), startApache(t, s, mode)+"/login.html")
		})
	}
}

func visit(t *testing.T, visitor *authservertest.Visitor, address string) report {
	t.Helper()
	body, at := visitor.Visit(t, address)
	var got report
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("ended at %s: %s", at, body)
	}
	if got.Claims["sub"] == nil || got.Claims["sub"] != got.UserInfo["sub"] || got.UserInfo["email"] != "alice@example.com" || got.Claims["email"] != "alice@example.com" {
		t.Errorf("got %+v", got)
	}
	return got
}

// run starts a relying party, which prints its URL.
func run(t *testing.T, s *authservertest.Server, client string, command ...string) string {
	t.Helper()
	process := exec.Command(command[0], command[1:]...)
	process.Env = append(os.Environ(), "ISSUER="+s.Issuer, "CLIENT_ID="+client, "CLIENT_SECRET="+authservertest.Secret)
	process.Stderr = t.Output()
	stdout, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { process.Process.Kill(); process.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%s did not start: %v", command[1], err)
	}
	return strings.TrimSpace(line)
}

func node(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat(filepath.Join("node", "node_modules", "openid-client"))
	}
	if err != nil {
		t.Fatal("no node, or no packages in internal/interop/node: `make setup` installs both")
	}
	return path
}

func python(t *testing.T) string {
	t.Helper()
	path := os.Getenv("AUTHSERVER_TEST_PYTHON")
	if path == "" {
		path = filepath.Join("..", "..", ".cache", "venv", "bin", "python")
	}
	if err := exec.Command(path, "-c", "import authlib, flask").Run(); err != nil {
		t.Fatal("no Python with the packages of internal/interop/requirements.txt: `make setup` installs it, AUTHSERVER_TEST_PYTHON names another")
	}
	return path
}

// startGo is a relying party made with golang.org/x/oauth2 and go-oidc.
func startGo(t *testing.T, s *authservertest.Server) string {
	t.Helper()
	provider, err := oidc.NewProvider(t.Context(), s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: "rp"})
	config := oauth2.Config{ClientID: "rp", ClientSecret: authservertest.Secret, Endpoint: provider.Endpoint(), Scopes: strings.Fields(scope)}
	state, nonce, pkce := "a-state", "a-nonce", oauth2.GenerateVerifier()
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, config.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(pkce)), http.StatusFound)
	})
	mux.HandleFunc("/callback", func(w http.ResponseWriter, r *http.Request) {
		got, err := redeem(r.Context(), provider, verifier, config, r.FormValue("code"), pkce, nonce)
		if err != nil || r.FormValue("state") != state || r.FormValue("iss") != s.Issuer {
			http.Error(w, fmt.Sprint(err, r.Form), http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(got)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	config.RedirectURL = server.URL + "/callback"
	return server.URL
}

func redeem(ctx context.Context, provider *oidc.Provider, verifier *oidc.IDTokenVerifier, config oauth2.Config, code, pkce, nonce string) (report, error) {
	var got report
	token, err := config.Exchange(ctx, code, oauth2.VerifierOption(pkce))
	if err != nil {
		return got, err
	}
	raw, _ := token.Extra("id_token").(string)
	idToken, err := verifier.Verify(ctx, raw)
	if err != nil {
		return got, err
	}
	if err := idToken.VerifyAccessToken(token.AccessToken); err != nil {
		return got, err
	}
	if idToken.Nonce != nonce {
		return got, fmt.Errorf("nonce %q", idToken.Nonce)
	}
	if err := idToken.Claims(&got.Claims); err != nil {
		return got, err
	}
	userinfo, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return got, err
	}
	if err := userinfo.Claims(&got.UserInfo); err != nil {
		return got, err
	}
	next, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
	got.Refreshed = err == nil && next.RefreshToken != "" && next.RefreshToken != token.RefreshToken
	return got, err
}

// startApache is Apache with mod_auth_openidc in front of a page that shows its
// claims.
func startApache(t *testing.T, s *authservertest.Server, mode string) string {
	t.Helper()
	const modules = "/usr/lib/apache2/modules"
	if _, err := os.Stat(filepath.Join(modules, "mod_auth_openidc.so")); err != nil {
		t.Skip("there is no mod_auth_openidc here; on Debian `make setup` installs it")
	}
	directory := t.TempDir()
	for parent := directory; strings.HasPrefix(parent, os.TempDir()) && parent != os.TempDir(); parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil { // it serves as another user
			t.Fatal(err)
		}
	}
	_, port, err := net.SplitHostPort(redistest.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile(filepath.Join("apache", "httpd.conf"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("{directory}", directory, "{port}", port, "{modules}", modules, "{issuer}", s.Issuer,
		"{client}", "rp", "{secret}", authservertest.Secret, "{mode}", mode).Replace(string(template))
	page := `{"claims":{"sub":"{sub}","email":"{email}"},"userinfo":{"sub":"{sub}","email":"{email}"}}`
	page = strings.NewReplacer("{sub}", `<!--#echo var="OIDC_CLAIM_sub" -->`, "{email}", `<!--#echo var="OIDC_CLAIM_email" -->`).Replace(page)
	for name, content := range map[string]string{"httpd.conf": text, "login.html": page} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	process := exec.Command("apache2", "-f", filepath.Join(directory, "httpd.conf"), "-D", "FOREGROUND")
	process.Stderr = t.Output()
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	t.Cleanup(func() {
		process.Process.Signal(os.Interrupt)
		<-ended
		if raw, err := os.ReadFile(filepath.Join(directory, "error.log")); err == nil && t.Failed() {
			t.Logf("%s", raw)
		}
	})
	timetest.Await(t, "apache2 listens", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("apache2 did not start: %v", err)
		default:
		}
		connection, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			connection.Close()
		}
		return err == nil
	})
	return "http://127.0.0.1:" + port
}
