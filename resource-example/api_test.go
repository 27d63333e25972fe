package main

import (
	"bytes"
	"fmt"
	"io"
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
	"authserver/verifier"
)

// token asks the authorization server for an access token.
func token(t *testing.T, s *authservertest.Server, client string, form string) string {
	t.Helper()
	request, err := http.NewRequest("POST", s.Issuer+"/token", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(client, authservertest.Secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("%s %s %v", response.Status, body, err)
	}
	_, after, _ := strings.Cut(string(body), `"access_token":"`)
	access, _, _ := strings.Cut(after, `"`)
	return access
}

// Both sample APIs give the same answers to the same tokens of a real server.
func TestAPIs(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	old := token(t, s, authservertest.ServiceID, "grant_type=client_credentials&scope=orders:read")
	for range 3 {
		if err := s.Keys.RotateForTesting(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: s.Issuer, Audience: authservertest.Audience})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(newAPI(v, s.Issuer))
	defer server.Close()
	read := token(t, s, authservertest.ServiceID, "grant_type=client_credentials&scope=orders:read")
	write := token(t, s, authservertest.ServiceID, "grant_type=client_credentials&scope=orders:write")
	const person = "grant_type=password&username=" + authservertest.Username + "&password=" + authservertest.Password
	admin := token(t, s, authservertest.WebID, person+"&scope=roles")
	anybody := token(t, s, authservertest.WebID, person+"&scope=orders:read")
	for name, base := range map[string]string{"Go": server.URL, "Flask": startFlask(t, s.Issuer), "Express": startExpress(t, s.Issuer)} {
		t.Run(name, func(t *testing.T) {
			for _, test := range []struct {
				name, method, path, body, authorization string
				status                                  int
				challenge                               string
			}{
				{"explanation", "GET", "/", "", "", 200, ""},
				{"health", "GET", "/healthz", "", "", 200, ""},
				{"nothing behind Bearer", "GET", "/orders", "", "Bearer", 400, "invalid_request"},
				{"no token", "GET", "/orders", "", "", 401, "Bearer"},
				{"read", "GET", "/orders", "", "Bearer " + read, 200, ""},
				{"scheme in other letters", "GET", "/orders", "", "bearer " + read, 200, ""},
				{"a token from before three rotations", "GET", "/orders", "", "Bearer " + old, 200, ""},
				{"write with read", "POST", "/orders", `{"item":"cake"}`, "Bearer " + read, 403, `scope="orders:write"`},
				{"write", "POST", "/orders", `{"item":"cake"}`, "Bearer " + write, 201, ""},
				{"write nonsense", "POST", "/orders", `nonsense`, "Bearer " + write, 400, ""},
				{"delete without role", "DELETE", "/orders/1", "", "Bearer " + anybody, 403, "insufficient_scope"},
				{"delete", "DELETE", "/orders/1", "", "Bearer " + admin, 204, ""},
				{"delete again", "DELETE", "/orders/1", "", "Bearer " + admin, 404, ""},
				{"altered signature", "GET", "/orders", "", "Bearer " + read[:len(read)-6] + "AAAAAA", 401, "invalid_token"},
				{"junk", "GET", "/orders", "", "Bearer junk", 401, "invalid_token"},
				{"unknown kid", "GET", "/orders", "", "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6InVua25vd24iLCJ0eXAiOiJhdCtqd3QifQ.e30.AAAA", 401, "invalid_token"},
				{"unsigned", "GET", "/orders", "", "Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0." + strings.Split(read, ".")[1] + ".", 401, "invalid_token"},
			} {
				status, header, body := call(t, test.method, base+test.path, test.body, test.authorization)
				if status != test.status || !strings.Contains(header.Get("WWW-Authenticate"), test.challenge) {
					t.Errorf("%s: %d %q %s, want %d %q", test.name, status, header.Get("WWW-Authenticate"), body, test.status, test.challenge)
				}
			}
		})
	}
}

// A revocation at the real server reaches the sample API, which asks nobody.
func TestRevocationReaches(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	v, err := verifier.New(t.Context(), verifier.Config{Issuer: s.Issuer, Audience: authservertest.Audience})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(newAPI(v, s.Issuer))
	defer server.Close()
	revoked := token(t, s, authservertest.ServiceID, "grant_type=client_credentials&scope=orders:read")
	other := token(t, s, authservertest.ServiceID, "grant_type=client_credentials&scope=orders:read")
	for _, access := range []string{revoked, other} {
		if status, _, body := call(t, "GET", server.URL+"/orders", "", "Bearer "+access); status != 200 {
			t.Fatalf("before: %d %s", status, body)
		}
	}
	revoke(t, s, revoked)
	timetest.AwaitNil(t, func() error {
		status, header, _ := call(t, "GET", server.URL+"/orders", "", "Bearer "+revoked)
		if status != 401 || !strings.Contains(header.Get("WWW-Authenticate"), "revoked") {
			return fmt.Errorf("still %d %s", status, header.Get("WWW-Authenticate"))
		}
		return nil
	})
	if status, _, body := call(t, "GET", server.URL+"/orders", "", "Bearer "+other); status != 200 {
		t.Errorf("another token of the same client: %d %s", status, body)
	}
}

// The samples that follow no feed look into the issuer's Token Status Lists.
func TestStatusLists(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) { c.Resources[0].StatusList = true }})
	const form = "grant_type=client_credentials&scope=orders:read"
	good, revoked := token(t, s, authservertest.ServiceID, form), token(t, s, authservertest.ServiceID, form)
	revoke(t, s, revoked)
	for name, base := range map[string]string{"Flask": startFlask(t, s.Issuer), "Express": startExpress(t, s.Issuer)} {
		// A list that was signed before the revocation is good for some seconds.
		timetest.AwaitNil(t, func() error {
			status, header, body := call(t, "GET", base+"/orders", "", "Bearer "+revoked)
			if status != 401 || !strings.Contains(header.Get("WWW-Authenticate"), "the token was revoked") {
				return fmt.Errorf("%s: %d %s %s", name, status, header.Get("WWW-Authenticate"), body)
			}
			return nil
		})
		if status, _, body := call(t, "GET", base+"/orders", "", "Bearer "+good); status != 200 {
			t.Errorf("%s refuses a token that was not revoked: %d %s", name, status, body)
		}
	}
}

func revoke(t *testing.T, s *authservertest.Server, access string) {
	t.Helper()
	request, err := http.NewRequest("POST", s.Issuer+"/revoke", strings.NewReader("token="+access))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(authservertest.ServiceID, authservertest.Secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 200 {
		t.Fatal(response.Status)
	}
}

// call asks an API, and again while it says that it does not know what was revoked: on a
// busy machine the feed may come too late for a moment.
func call(t *testing.T, method, url, body, authorization string) (status int, header http.Header, answer string) {
	t.Helper()
	timetest.Await(t, method+" "+url+" is answered", func() bool {
		status, header, answer = callOnce(t, method, url, body, authorization)
		return status != http.StatusServiceUnavailable
	})
	return status, header, answer
}

func callOnce(t *testing.T, method, url, body, authorization string) (int, http.Header, string) {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(answer)
}

func startFlask(t *testing.T, issuer string) string {
	t.Helper()
	python := os.Getenv("AUTHSERVER_TEST_PYTHON")
	if python == "" {
		if python, _ = filepath.Abs("../.cache/venv/bin/python"); exec.Command(python, "-c", "import flask, jwt").Run() != nil {
			t.Fatal("no Python with the requirements of resource-example/flask: `make test` sets it up, AUTHSERVER_TEST_PYTHON names another")
		}
	}
	return startSample(t, issuer, python, "flask/app.py")
}

func startExpress(t *testing.T, issuer string) string {
	t.Helper()
	if _, err := os.Stat("node/node_modules/jose"); err != nil {
		t.Fatal("resource-example/node has no node_modules: `make test` sets it up, or run npm install there")
	}
	return startSample(t, issuer, "node", "node/app.js")
}

// startSample runs one of the sample APIs and returns its URL.
func startSample(t *testing.T, issuer, interpreter, file string) string {
	t.Helper()
	address := redistest.FreeAddress(t)
	var output bytes.Buffer
	command := exec.Command(interpreter, file)
	command.Env = append(os.Environ(), "ISSUER="+issuer, "AUDIENCE="+authservertest.Audience, "LISTEN="+address)
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", file, output.String())
		}
	})
	base := "http://" + address
	if !timetest.Until(func() bool {
		response, err := http.Get(base + "/healthz")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	}) {
		t.Fatalf("%s does not answer", file) // its output follows
	}
	return base
}
