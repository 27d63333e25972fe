package authserver_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"authserver/authserver/authservertest"
)

// answer is a response of an endpoint, read whole.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (a answer) text(member string) string { s, _ := a.body[member].(string); return s }

// post sends a form with optional Basic credentials ("id:secret").
func post(t testing.TB, endpoint, basic string, form url.Values) answer {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if basic != "" {
		request.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(basic)))
	}
	return send(t, request)
}

func send(t testing.TB, request *http.Request) answer {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: response.StatusCode, header: response.Header, raw: string(raw)}
	json.Unmarshal(raw, &a.body)
	return a
}

const (
	service = authservertest.ServiceID + ":" + authservertest.Secret
	web     = authservertest.WebID + ":" + authservertest.Secret
	api     = authservertest.APIID + ":" + authservertest.Secret
)

func form(pairs ...string) url.Values {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return values
}

// signIn returns the tokens that the web client gets for alice.
func signIn(t testing.TB, s *authservertest.Server, scope string) (access, refresh string) {
	t.Helper()
	a := post(t, s.Issuer+"/token", web, form("grant_type", "password", "username", authservertest.Username,
		"password", authservertest.Password, "scope", scope))
	if a.status != http.StatusOK {
		t.Fatalf("signing in: %d %s", a.status, a.raw)
	}
	return a.text("access_token"), a.text("refresh_token")
}

func refresh(t testing.TB, s *authservertest.Server, token string) answer {
	t.Helper()
	return post(t, s.Issuer+"/token", web, form("grant_type", "refresh_token", "refresh_token", token))
}

func introspect(t testing.TB, s *authservertest.Server, caller, token string) answer {
	t.Helper()
	a := post(t, s.Issuer+"/introspect", caller, form("token", token))
	if a.status != http.StatusOK {
		t.Fatalf("introspecting: %d %s", a.status, a.raw)
	}
	return a
}

// claimsOf reads the claims of a token without verifying it.
func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %q", token)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// refused checks a refusal.
func refused(t testing.TB, what string, a answer, status int, code string) {
	t.Helper()
	if a.status != status || a.text("error") != code {
		t.Errorf("%s: answered %d %s, want %d %s", what, a.status, a.raw, status, code)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: Cache-Control is %q", what, a.header.Get("Cache-Control"))
	}
}

func basic(credentials string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

// ask sends a form to a handler that no listener serves.
func ask(handler http.Handler, path string, values url.Values) answer {
	request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(values.Encode()))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	a := answer{status: recorder.Code, header: recorder.Header(), raw: recorder.Body.String()}
	json.Unmarshal(recorder.Body.Bytes(), &a.body)
	return a
}
