package main

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"

	"authserver/bench/internal/process"
)

// measurePages signs people in by the pages, all at the same time: each has a browser
// of his own that comes from an application, gets the page, sends the form and is
// led back with a code. Before that, one browser does the same without a password,
// since it is signed in, to tell what the hash costs and what the rest.
func measurePages(s settings) error {
	return withPeople(s, func(base string, server *process.Process) error {
		first, err := newVisitor(base, 0)
		if err != nil {
			return err
		}
		if _, err := first.signIn("user0"); err != nil {
			return err
		}
		cpu, began, codes := server.CPU(), time.Now(), 0
		for time.Since(began) < s.each {
			if err := first.code(); err != nil {
				return err
			}
			codes++
		}
		fmt.Printf("codes for a browser that is signed in: %.0f per second, %.2f ms of server CPU each\n",
			float64(codes)/time.Since(began).Seconds(), float64((server.CPU()-cpu).Microseconds())/1000/float64(codes))
		return allAtOnce(s.people, "by the pages", server, func(i int) (int, error) {
			visitor, err := newVisitor(base, i)
			if err != nil {
				return 0, err
			}
			return visitor.signIn(fmt.Sprintf("user%d", i))
		})
	})
}

// visitor is one person's browser.
type visitor struct {
	base    string
	address string // that a proxy in front says he has
	http    *http.Client
}

func newVisitor(base string, i int) (*visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &visitor{base, fmt.Sprintf("192.0.2.%d", i%250), &http.Client{Jar: jar, CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(next.URL.String(), process.RedirectURI) {
			return http.ErrUseLastResponse
		}
		return nil
	}}}, nil
}

func (v *visitor) do(method, address, form string) (*http.Response, string, error) {
	request, err := http.NewRequest(method, address, strings.NewReader(form))
	if err != nil {
		return nil, "", err
	}
	request.Header.Set("X-Forwarded-For", v.address)
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	response, err := v.http.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response, string(body), err
}

func (v *visitor) authorize() (*http.Response, string, error) {
	return v.do(http.MethodGet, v.base+"/authorize?"+url.Values{"client_id": {process.ClientID}, "redirect_uri": {process.RedirectURI},
		"response_type": {"code"}, "scope": {"openid orders:read"}, "state": {"x"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"}}.Encode(), "")
}

// code gets a code without a page.
func (v *visitor) code() error {
	response, body, err := v.authorize()
	if err != nil {
		return err
	}
	return arrived(response, body)
}

func arrived(response *http.Response, body string) error {
	if location := response.Header.Get("Location"); !strings.HasPrefix(location, process.RedirectURI) || !strings.Contains(location, "code=") {
		return fmt.Errorf("%s to %q instead of a code: %.200s", response.Status, location, body)
	}
	return nil
}

var interactionInput = regexp.MustCompile(`name="interaction" value="([^"]*)"`)

// signIn returns how often the form was shown again because the server was busy.
func (v *visitor) signIn(username string) (busy int, err error) {
	response, body, err := v.authorize()
	for ; err == nil; busy++ {
		match := interactionInput.FindStringSubmatch(body)
		if match == nil {
			return busy, fmt.Errorf("%s without a form: %.200s", response.Status, body)
		}
		form := url.Values{"interaction": {html.UnescapeString(match[1])}, "username": {username}, "password": {process.Password}}
		response, body, err = v.do(http.MethodPost, v.base+"/login", form.Encode())
		if err != nil {
			break
		}
		if response.StatusCode != http.StatusServiceUnavailable && response.StatusCode != http.StatusTooManyRequests {
			return busy, arrived(response, body)
		}
		again, _ := time.ParseDuration(response.Header.Get("Retry-After") + "s")
		time.Sleep(max(again, 100*time.Millisecond))
	}
	return busy, err
}
