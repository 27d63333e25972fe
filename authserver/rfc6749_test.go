package authserver_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"authserver/authserver/authservertest"
)

// RFC 6749 §4.4 and RFC 9068 §2.
func TestClientCredentials(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	a := post(t, s.Issuer+"/token", service, form("grant_type", "client_credentials", "scope", "orders:read"))
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	if a.text("token_type") != "Bearer" || a.text("scope") != "orders:read" || a.body["expires_in"] != 600.0 {
		t.Errorf("response: %s", a.raw)
	}
	if a.body["refresh_token"] != nil {
		t.Error("client_credentials came with a refresh token (RFC 6749 §4.4.3)")
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", a.header)
	}
	claims := claimsOf(t, a.text("access_token"))
	for claim, want := range map[string]any{
		"iss": s.Issuer, "sub": authservertest.ServiceID, "client_id": authservertest.ServiceID,
		"aud": authservertest.Audience, "scope": "orders:read",
	} {
		if claims[claim] != want {
			t.Errorf("claim %s is %v, want %v", claim, claims[claim], want)
		}
	}
	for _, claim := range []string{"jti", "iat", "exp", "grant_id"} {
		if claims[claim] == nil {
			t.Errorf("claim %s is missing", claim)
		}
	}
	// Without a scope the client gets all that it is registered for (§3.3).
	a = post(t, s.Issuer+"/token", service, form("grant_type", "client_credentials"))
	if a.text("scope") != "orders:read orders:write" {
		t.Errorf("the default scope is %q", a.text("scope"))
	}
}

func TestPasswordGrant(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	access, refreshToken := signIn(t, s, "profile roles orders:read")
	claims := claimsOf(t, access)
	if claims["preferred_username"] != "alice" || claims["roles"].([]any)[0] != "admin" || claims["auth_time"] == nil {
		t.Errorf("claims: %v", claims)
	}
	if claims["sub"] == "alice" || claims["sub"] == claims["client_id"] {
		t.Errorf("sub is %v", claims["sub"])
	}
	if refreshToken == "" {
		t.Error("no refresh token")
	}
	access, _ = signIn(t, s, "orders:read")
	if claims := claimsOf(t, access); claims["roles"] != nil || claims["preferred_username"] != nil {
		t.Errorf("claims that were not asked for: %v", claims)
	}
}

// RFC 6749 §5.2: each mistake has its code.
func TestTokenRefusals(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	access, refreshToken := signIn(t, s, "orders:read")
	cc := func(pairs ...string) url.Values {
		return form(append([]string{"grant_type", "client_credentials"}, pairs...)...)
	}
	for _, test := range []struct {
		name, basic string
		form        url.Values
		status      int
		code        string
	}{
		{"no client", "", cc(), 401, "invalid_client"},
		{"unknown client", "nobody:" + authservertest.Secret, cc(), 401, "invalid_client"},
		{"wrong secret", "service:wrong", cc(), 401, "invalid_client"},
		{"wrong secret in the body", "", cc("client_id", "service", "client_secret", "wrong"), 401, "invalid_client"},
		{"empty secret", "service:", cc(), 401, "invalid_client"},
		{"public client with a secret", "spa:x", cc(), 401, "invalid_client"},
		{"public client with a secret in the body", "", cc("client_id", "spa", "client_secret", "x"), 401, "invalid_client"},
		{"public client with an empty secret", "spa:", cc(), 401, "invalid_client"},
		{"confidential client without secret", "", cc("client_id", "service"), 401, "invalid_client"},
		{"secret without client_id", "", cc("client_secret", authservertest.Secret), 401, "invalid_client"},
		{"Basic and post", service, cc("client_id", "service", "client_secret", authservertest.Secret), 400, "invalid_request"},
		{"another client_id", service, cc("client_id", "web"), 400, "invalid_request"},
		{"no grant_type", service, form(), 400, "invalid_request"},
		{"empty grant_type", service, form("grant_type", ""), 400, "invalid_request"},
		{"unknown grant_type", service, form("grant_type", "implicit"), 400, "unsupported_grant_type"},
		{"grant not allowed", web, cc(), 400, "unauthorized_client"},
		{"code not allowed", service, form("grant_type", "authorization_code", "code", "x"), 400, "unauthorized_client"},
		{"refresh not allowed", service, form("grant_type", "refresh_token", "refresh_token", refreshToken), 400, "unauthorized_client"},
		{"password not allowed", service, form("grant_type", "password", "username", "alice", "password", "wonderland"), 400, "unauthorized_client"},
		{"scope not allowed", service, cc("scope", "admin"), 400, "invalid_scope"},
		{"user scope for a client", service, cc("scope", "roles"), 400, "invalid_scope"},
		{"scope of bad characters", service, cc("scope", `a"b`), 400, "invalid_scope"},
		{"unknown resource", service, cc("resource", "https://other.example.com"), 400, "invalid_target"},
		{"two resources", service, cc("resource", authservertest.Audience, "resource", "https://other.example.com"), 400, "invalid_target"},
		{"grant_type twice", service, cc("grant_type", "client_credentials"), 400, "invalid_request"},
		{"unknown parameter twice", service, cc("foo", "1", "foo", "2"), 400, "invalid_request"},
		{"control character", service, cc("scope", "a\x00b"), 400, "invalid_request"},
		{"too many parameters", service, manyParameters(), 400, "invalid_request"},
		{"no username", web, form("grant_type", "password", "password", "x"), 400, "invalid_request"},
		{"wrong password", web, form("grant_type", "password", "username", "alice", "password", "x"), 400, "invalid_grant"},
		{"unknown user", web, form("grant_type", "password", "username", "nobody", "password", "x"), 400, "invalid_grant"},
		{"no refresh token", web, form("grant_type", "refresh_token"), 400, "invalid_request"},
		{"access token as refresh token", web, form("grant_type", "refresh_token", "refresh_token", access), 400, "invalid_grant"},
		{"garbage as refresh token", web, form("grant_type", "refresh_token", "refresh_token", "garbage"), 400, "invalid_grant"},
		{"truncated refresh token", web, form("grant_type", "refresh_token", "refresh_token", refreshToken[:len(refreshToken)-1]), 400, "invalid_grant"},
		{"refresh token of another client", "", form("grant_type", "refresh_token", "client_id", "spa", "refresh_token", refreshToken), 400, "invalid_grant"},
		{"wider scope at refresh", web, form("grant_type", "refresh_token", "refresh_token", refreshToken, "scope", "orders:write"), 400, "invalid_scope"},
	} {
		refused(t, test.name, post(t, s.Issuer+"/token", test.basic, test.form), test.status, test.code)
	}
	// Libraries that parse a URL write it anew, with a slash and in small letters: what was meant is said.
	for asked, said := range map[string]bool{authservertest.Audience + "/": true, strings.ToUpper(authservertest.Audience): true, authservertest.Audience + "/a": false} {
		a := post(t, s.Issuer+"/token", service, cc("resource", asked))
		refused(t, asked, a, 400, "invalid_target")
		if strings.Contains(a.text("error_description"), "did you mean "+authservertest.Audience+" ?") != said {
			t.Errorf("resource %s: %s", asked, a.raw)
		}
	}
	// None of that has harmed the grant.
	if a := refresh(t, s, refreshToken); a.status != http.StatusOK {
		t.Errorf("after all refusals the refresh token is dead: %s", a.raw)
	}
}

func manyParameters() url.Values {
	values := url.Values{}
	for i := range 101 {
		values.Set("p"+strings.Repeat("x", i), "1")
	}
	return values
}

// OAuth 2.1 §3.2 and ATTACKS HT-01 to HT-13: the form of a request. Larger bodies:
// TestSlowBodiesHoldNoPlace.
func TestRequestForm(t *testing.T) {
	s := authservertest.New(t, authservertest.Options{})
	request := func(method, path, contentType, body string) answer {
		t.Helper()
		r, err := http.NewRequest(method, s.Issuer+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(authservertest.ServiceID, authservertest.Secret)
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		return send(t, r)
	}
	const formType, good = "application/x-www-form-urlencoded", "grant_type=client_credentials"
	for _, test := range []struct {
		name, method, path, contentType, body string
		status                                int
	}{
		{"as it should be", "POST", "/token", formType, good, 200},
		{"charset named", "POST", "/token", formType + "; charset=UTF-8", good, 200},
		{"GET", "GET", "/token?" + good, "", "", 405},
		{"query instead of body", "POST", "/token?" + good, formType, "", 400},
		{"no content type", "POST", "/token", "", good, 400},
		{"JSON", "POST", "/token", "application/json", `{"grant_type":"client_credentials"}`, 400},
		{"multipart", "POST", "/token", "multipart/form-data; boundary=x", good, 400},
		{"other charset", "POST", "/token", formType + "; charset=utf-16", good, 400},
		{"bad escape", "POST", "/token", formType, good + "&code=%zz", 400},
		{"semicolon", "POST", "/token", formType, good + ";x=1", 400},
		{"not UTF-8", "POST", "/token", formType, good + "&x=%ff", 400},
		{"as large as may be", "POST", "/token", formType, good + "&x=" + strings.Repeat("a", 64<<10-len(good)-3), 200},
		{"a byte too large", "POST", "/token", formType, good + "&x=" + strings.Repeat("a", 64<<10-len(good)-2), 413},
		{"10,001 parameters", "POST", "/token", formType, good + strings.Repeat("&a=", 10_000), 400},
		{"as many & as fit", "POST", "/token", formType, good + strings.Repeat("&", 60_000), 400},
		{"a query beside the body", "POST", "/token?scope=nonsense&grant_type=password", formType, good, 200},
		{"NUL", "POST", "/token", formType, good + "&x=%00", 400},
		{"a bad pair before good ones", "POST", "/token", formType, "code=%zz&x=1&" + good, 400},
		{"double slash", "POST", "//token", formType, good, 404},
		{"trailing slash", "POST", "/token/", formType, good, 404},
		{"dot segments", "POST", "/a/../token", formType, good, 404},
		{"encoded path", "POST", "/%74oken", formType, good, 404},
		{"upper case", "POST", "/TOKEN", formType, good, 404},
		{"matrix parameter", "POST", "/token;x=1", formType, good, 404},
		{"a matrix as a directory", "POST", "/;a/token", formType, good, 404},
		{"metrics are not public", "GET", "/metrics", "", "", 404},
	} {
		if a := request(test.method, test.path, test.contentType, test.body); a.status != test.status {
			t.Errorf("%s: %d %s, want %d", test.name, a.status, a.raw, test.status)
		}
	}
	// HT-04: each of them alone is ignored, or asked for in vain.
	for _, name := range []string{"grant_type", "code", "refresh_token", "client_id", "scope", "redirect_uri", "code_verifier", "client_assertion", "unknown"} {
		twice := good + "&" + name + "=a&" + name + "=a"
		want := strings.Replace("the parameter "+name, "the parameter unknown", "a parameter", 1) + " is given more than once"
		if a := request("POST", "/token", formType, twice); a.status != 400 || a.text("error_description") != want {
			t.Errorf("%s twice: %d %s", name, a.status, a.raw)
		}
	}
	// HT-01: a length that is a lie. What is promised and does not come is not a request.
	connection, err := net.Dial("tcp", strings.TrimPrefix(s.Issuer, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(connection, "POST /token HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n%s", basic(service), formType, good)
	connection.(*net.TCPConn).CloseWrite()
	if said, err := io.ReadAll(connection); err != nil || !strings.HasPrefix(string(said), "HTTP/1.1 400") {
		t.Errorf("a body that is shorter than it says: %q, %v", said, err)
	}
	if a := request("GET", "/token", "", ""); a.header.Get("Allow") != "OPTIONS, POST" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	}
}

// RFC 6749 §2.3.1: Basic credentials, encoded and not (ATTACKS CA-08).
func TestBasicCredentials(t *testing.T) {
	const id, secret = "odd client", "p%4+:ä-0123456789abcdef0123456789"
	s := authservertest.New(t, authservertest.Options{Configure: withClient(id, secret)})
	for name, test := range map[string]struct {
		header string
		status int
	}{
		"raw":             {basic(id + ":" + secret), 200},
		"form-encoded":    {basic(url.QueryEscape(id) + ":" + url.QueryEscape(secret)), 200},
		"lower-case name": {strings.Replace(basic(id+":"+secret), "Basic", "basic", 1), 200},
		"two spaces":      {strings.Replace(basic(id+":"+secret), "Basic ", "Basic  ", 1), 200}, // RFC 9110 §11.4
		"wrong":           {basic(id + ":" + secret + "x"), 401},
		"no colon":        {basic(id), 401},
		"bad escape":      {basic("%zz:%zz"), 401},
		"not base64":      {"Basic ###", 401},
		"no padding":      {strings.TrimRight(basic("ab:cd"), "="), 401},
		"other scheme":    {"Bearer abc", 401},
		"nothing":         {"Basic", 401},
		"plus for space":  {basic("odd+client:" + url.QueryEscape(secret)), 200},
		"id in UTF-8":     {basic("caf\u00e9:" + secret), 401},
		"no UTF-8":        {basic("\xff:\xff"), 401},
		"nothing inside":  {"Basic ", 401},
		"a line feed":     {"Basic " + strings.TrimPrefix(basic(id+":"+secret), "Basic ")[:8] + "\t" + strings.TrimPrefix(basic(id+":"+secret), "Basic ")[8:], 401},
		"trailing bits":   {trailingBits(t, basic(id+":"+secret), basic(url.QueryEscape(id)+":"+secret), basic(url.QueryEscape(id)+":"+url.QueryEscape(secret))), 401},
	} {
		r, _ := http.NewRequest("POST", s.Issuer+"/token", strings.NewReader("grant_type=client_credentials"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", test.header)
		a := send(t, r)
		if a.status != test.status {
			t.Errorf("%s: %d %s, want %d", name, a.status, a.raw, test.status)
		}
		if a.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), `Basic realm="authserver", error="invalid_client", error_description="client auth`) {
			t.Errorf("%s: WWW-Authenticate is %q (RFC 6749 §5.2)", name, a.header.Get("WWW-Authenticate"))
		}
	}
}

// trailingBits is the first of some padded base64 with other bits after the last byte,
// where a decoder that is not strict reads the same.
func trailingBits(t *testing.T, of ...string) string {
	t.Helper()
	for _, one := range of {
		if text := strings.TrimRight(one, "="); text != one { // the last character ends in bits that are zero
			return text[:len(text)-1] + string(text[len(text)-1]+1) + one[len(text):]
		}
	}
	t.Fatal("none is padded")
	return ""
}
