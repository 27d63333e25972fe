package authservertest

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// Visitor is a person with a browser without scripts, for tests of applications: it
// keeps cookies, follows redirects, signs in and allows whatever it is asked.
type Visitor struct {
	Username, Password string
	// Until, if it is set, ends a visit: a redirect to an address that begins so is
	// where the visitor is, but nothing is fetched from there.
	Until  string
	client *http.Client
}

// NewVisitor returns a visitor who signs in as Username.
func NewVisitor(t testing.TB) *Visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &Visitor{Username: Username, Password: Password, client: &http.Client{Jar: jar}}
	v.client.CheckRedirect = func(next *http.Request, _ []*http.Request) error {
		if v.Until != "" && strings.HasPrefix(next.URL.String(), v.Until) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return v
}

// Cookies returns what the visitor's browser would send to an address.
func (v *Visitor) Cookies(t testing.TB, address string) []*http.Cookie {
	t.Helper()
	to, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return v.client.Jar.Cookies(to)
}

// Visit asks for a page and goes on, through sign-in, consent and forms that submit
// themselves, until a page has no form that it knows. It returns that page.
func (v *Visitor) Visit(t testing.TB, address string) (body string, at *url.URL) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		body, at = v.do(t, request)
		request = v.answer(t, body, at)
		if request == nil {
			return body, at
		}
	}
	t.Fatalf("visiting %s: one form after another, lastly at %s", address, at)
	return "", nil
}

func (v *Visitor) do(t testing.TB, request *http.Request) (string, *url.URL) {
	t.Helper()
	request.Header.Set("Accept", "text/html,*/*;q=0.8") // some applications send only browsers to sign in
	response, err := v.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if location, err := response.Location(); err == nil {
		return "", location
	}
	return string(body), response.Request.URL
}

var (
	forms  = regexp.MustCompile(`(?s)<form[^>]* action="([^"]*)"[^>]*>(.*?)</form>`)
	fields = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// answer fills the first form of a page that the visitor knows what to do with.
func (v *Visitor) answer(t testing.TB, body string, at *url.URL) *http.Request {
	t.Helper()
	for _, form := range forms.FindAllStringSubmatch(body, -1) {
		values := make(url.Values)
		for _, field := range fields.FindAllStringSubmatch(form[2], -1) {
			values.Set(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
		}
		switch {
		case strings.Contains(form[2], `name="password"`):
			values.Set("username", v.Username)
			values.Set("password", v.Password)
		case strings.Contains(form[2], `value="allow"`):
			values.Set("decision", "allow")
		case !values.Has("iss"): // of response_mode=form_post
			continue
		}
		action, err := at.Parse(html.UnescapeString(form[1]))
		if err != nil {
			t.Fatal(fmt.Errorf("a form at %s: %w", at, err))
		}
		request, err := http.NewRequest(http.MethodPost, action.String(), strings.NewReader(values.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Origin", at.Scheme+"://"+at.Host)
		return request
	}
	return nil
}
