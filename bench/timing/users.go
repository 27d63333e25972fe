package main

import (
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"authserver/bench/internal/process"
)

// compareUsers compares how long a wrong password takes to be refused of users who exist and
// of users who do not, by the password grant and on the page, each time of another user and
// from another address (ATTACKS BF-06).
func compareUsers(binary string, each int) error {
	i, err := process.Install(binary, process.Options{People: each + warming})
	if err != nil {
		return err
	}
	defer i.Remove()
	p, err := i.Start()
	if err != nil {
		return err
	}
	defer p.Stop()
	for _, way := range []struct {
		name string
		time func(i *process.Installation, username, from string) (time.Duration, error)
	}{{"by the password grant", wrongGrant}, {"on the page", wrongPage}} {
		taken := make(map[string][]time.Duration)
		for n := range each + warming {
			kinds := []struct{ name, username string }{{"known", fmt.Sprint("user", n)}, {"unknown", fmt.Sprint("none", n)}}
			if n%2 == 1 {
				slices.Reverse(kinds)
			}
			for k, kind := range kinds {
				one, err := way.time(i, kind.username, fmt.Sprintf("10.%d.%d.%d", k, n/250, n%250))
				if err != nil {
					return fmt.Errorf("a wrong password of %s %s: %w", kind.username, way.name, err)
				}
				if n >= warming {
					taken[kind.name] = append(taken[kind.name], one)
				}
			}
		}
		slices.Sort(taken["known"])
		slices.Sort(taken["unknown"])
		known, unknown := taken["known"][each/2], taken["unknown"][each/2]
		fmt.Printf("median of %d wrong passwords %s: of a user %v, of nobody %v, ratio %.3f\n", each, way.name, known, unknown, float64(unknown)/float64(known))
		if difference := (known - unknown).Abs(); float64(difference) >= 0.05*float64(known) {
			return fmt.Errorf("%s it shows in the time who has an account: by %v", way.name, difference)
		}
	}
	return nil
}

const warming = 20 // of each kind, that are not counted

func wrongGrant(i *process.Installation, username, from string) (time.Duration, error) {
	request, err := newForm(i.Base+"/token", url.Values{"grant_type": {"password"}, "username": {username}, "password": {"wrong"}}, from)
	if err != nil {
		return 0, err
	}
	request.SetBasicAuth(process.ClientID, process.Secret)
	taken, answer, err := timed(http.DefaultClient, request)
	if err == nil && !strings.Contains(answer, `"invalid_grant"`) {
		err = errors.New(answer)
	}
	return taken, err
}

var (
	signInForm  = regexp.MustCompile(`(?s)<form id="sign-in" method="post" action="([^"]*)">(.*?)</form>`)
	hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// wrongPage opens the page in a new browser, and tells how long the answer to a wrong password takes.
func wrongPage(i *process.Installation, username, from string) (time.Duration, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return 0, err
	}
	browser := &http.Client{Jar: jar}
	page, err := browser.Get(i.Base + "/authorize?" + url.Values{"response_type": {"code"}, "client_id": {process.ClientID}, "redirect_uri": {process.RedirectURI},
		"scope": {"profile"}, "code_challenge_method": {"S256"}, "code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}}.Encode())
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(page.Body)
	page.Body.Close()
	if err != nil {
		return 0, err
	}
	form := signInForm.FindStringSubmatch(string(body))
	if form == nil {
		return 0, fmt.Errorf("no page to sign in: %.300s", body)
	}
	fields := url.Values{"username": {username}, "password": {"wrong"}}
	for _, field := range hiddenField.FindAllStringSubmatch(form[2], -1) {
		fields.Set(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
	}
	to, err := page.Request.URL.Parse(html.UnescapeString(form[1]))
	if err != nil {
		return 0, err
	}
	request, err := newForm(to.String(), fields, from)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Sec-Fetch-Site", "same-origin")
	taken, answer, err := timed(browser, request)
	if err == nil && (!signInForm.MatchString(answer) || strings.Contains(answer, "too many")) {
		err = fmt.Errorf("it is not asked for again: %.300s", answer)
	}
	return taken, err
}

// newForm is a form as from an address behind a proxy.
func newForm(to string, fields url.Values, from string) (*http.Request, error) {
	request, err := http.NewRequest(http.MethodPost, to, strings.NewReader(fields.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("X-Forwarded-For", from)
	return request, nil
}

func timed(client *http.Client, request *http.Request) (time.Duration, string, error) {
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return time.Since(began), string(body), err
}
