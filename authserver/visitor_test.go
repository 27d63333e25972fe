package authserver_test

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

// visitor is a browser without scripts: it keeps cookies and posts forms.
type visitor struct {
	t      *testing.T
	client *http.Client
	header http.Header // of each POST
}

func newVisitor(t *testing.T) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	stay := func(request *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(request.URL.Host, "web.example.com") { // a client that does not run
			return http.ErrUseLastResponse
		}
		return nil
	}
	return &visitor{t, &http.Client{Jar: jar, CheckRedirect: stay}, http.Header{"Sec-Fetch-Site": {"same-origin"}}}
}

// shown is what a visitor sees.
type shown struct {
	status int
	header http.Header
	url    *url.URL // where it is
	to     string   // where it is sent, outside of the server
	body   string
}

func (v *visitor) do(request *http.Request) shown {
	v.t.Helper()
	response, err := v.client.Do(request)
	if err != nil {
		v.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return shown{response.StatusCode, response.Header, response.Request.URL, response.Header.Get("Location"), string(body)}
}

func (v *visitor) get(url string) shown {
	v.t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	return v.do(request)
}

func (v *visitor) post(to string, values url.Values) shown {
	v.t.Helper()
	request, err := http.NewRequest(http.MethodPost, to, strings.NewReader(values.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	for name, value := range v.header {
		request.Header[name] = value
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return v.do(request)
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]* action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// form returns the hidden inputs of the first form of a page that contains a text,
// with others beside them, and where it goes.
func (s shown) form(t *testing.T, containing string, more ...string) (string, url.Values) {
	t.Helper()
	for _, match := range formTag.FindAllStringSubmatch(s.body, -1) {
		if !strings.Contains(match[2], containing) {
			continue
		}
		values := make(url.Values)
		for _, input := range inputTag.FindAllStringSubmatch(match[2], -1) {
			values.Set(html.UnescapeString(input[1]), html.UnescapeString(input[2]))
		}
		for i := 0; i < len(more); i += 2 {
			values.Set(more[i], more[i+1])
		}
		return html.UnescapeString(match[1]), values
	}
	t.Fatalf("no form with %q on the page (%d) at %s: %s", containing, s.status, s.url, s.text())
	return "", nil
}

var (
	tag   = regexp.MustCompile(`(?s)<style>.*?</style>|<script>.*?</script>|<[^>]*>`)
	space = regexp.MustCompile(`\s+`)
)

// text is what a page says.
func (s shown) text() string {
	return strings.TrimSpace(space.ReplaceAllString(html.UnescapeString(tag.ReplaceAllString(s.body, " ")), " "))
}

func (s shown) expect(t *testing.T, status int, texts ...string) shown {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(s.text(), text) {
			t.Fatalf("%q is not on the page (%d, to %q): %s", text, s.status, s.to, s.text())
		}
	}
	if s.status != status {
		t.Fatalf("status %d, want %d: %s", s.status, status, s.text())
	}
	return s
}

// submit posts the form of a page that contains a text.
func (v *visitor) submit(page shown, containing string, more ...string) shown {
	v.t.Helper()
	action, values := page.form(v.t, containing, more...)
	return v.post(action, values)
}

// signIn signs in on a page that asks for it.
func (v *visitor) signIn(page shown, username, password string) shown {
	v.t.Helper()
	return v.submit(page, `name="password"`, "username", username, "password", password)
}

const webCallback = "https://web.example.com/callback"

// pagesServer has clients for the authorization endpoint, and the users alice and bob.
func pagesServer(t *testing.T, configure func(*authserver.Config)) *authservertest.Server {
	t.Helper()
	return authservertest.New(t, authservertest.Options{Configure: func(c *authserver.Config) {
		const scope = "openid profile offline_access orders:read orders:write"
		code := []string{"authorization_code", "refresh_token"}
		c.Clients = append(c.Clients,
			authserver.Client{ClientID: "shop", ClientName: "Corner Shop", ClientSecret: authservertest.Secret, Scope: scope, GrantTypes: code,
				RedirectURIs: []string{webCallback}, PostLogoutRedirectURIs: []string{"https://web.example.com/bye", "https://web.example.com/bye?kept=1"}},
			authserver.Client{ClientID: "own", ClientSecret: authservertest.Secret, Scope: scope, GrantTypes: code, SkipConsent: true, RedirectURIs: []string{webCallback}})
		bob := c.Users[0]
		bob.Username = "bob"
		c.Users = append(c.Users, bob)
		if configure != nil {
			configure(c)
		}
	}})
}

func authorizeURL(s *authservertest.Server, clientID string, more ...string) string {
	values := url.Values{"client_id": {clientID}, "redirect_uri": {webCallback}, "response_type": {"code"}, "scope": {"openid orders:read"},
		"state": {"xyz"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return s.Issuer + "/authorize?" + values.Encode()
}
