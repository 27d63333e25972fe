package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"authserver/bench/internal/process"
)

// browser is one person's: it has cookies, and each of its connections goes to any instance.
type browser struct {
	person *person
	http   *http.Client
}

func (p *person) newBrowser() (*browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, "localhost:"+p.any().port)
	}
	return &browser{p, &http.Client{
		Jar: jar, Timeout: 3 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		CheckRedirect: func(next *http.Request, _ []*http.Request) error {
			if strings.HasPrefix(next.URL.String(), process.RedirectURI) {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}}, nil
}

// page is what the browser shows, or where it was led to.
type page struct {
	status   int
	location string
	body     string
}

func (b *browser) do(method, path, form string) (page, error) {
	request, err := http.NewRequest(method, b.person.world.installation.Base+path, strings.NewReader(form))
	if err != nil {
		return page{}, err
	}
	request.Header.Set("X-Forwarded-For", b.person.address())
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	response, err := b.http.Do(request)
	if err != nil {
		return page{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	b.person.history.searched(body)
	return page{response.StatusCode, response.Header.Get("Location"), string(body)}, err
}

// code is an authorization code and what its exchange takes.
type code struct{ raw, verifier string }

var interactionInput = regexp.MustCompile(`name="interaction" value="([^"]*)"`)

// authorize asks for a code, and signs the person in where the page asks for it. What
// an unanswered form has done is not known; the browser begins again.
func (b *browser) authorize(verifier string) (code, bool) {
	hash := sha256.Sum256([]byte(verifier))
	shown, err := b.do(http.MethodGet, "/authorize?"+url.Values{
		"client_id": {b.person.client()}, "redirect_uri": {process.RedirectURI}, "response_type": {"code"}, "scope": {"orders:read"}, "state": {"x"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(hash[:])}, "code_challenge_method": {"S256"}}.Encode(), "")
	if match := interactionInput.FindStringSubmatch(shown.body); err == nil && match != nil {
		shown, err = b.do(http.MethodPost, "/login", url.Values{"interaction": {html.UnescapeString(match[1])},
			"username": {b.person.name()}, "password": {process.Password}}.Encode())
	}
	if err != nil || !strings.HasPrefix(shown.location, process.RedirectURI) {
		return code{}, false
	}
	at, err := url.Parse(shown.location)
	if err != nil || at.Query().Get("code") == "" {
		return code{}, false
	}
	return code{at.Query().Get("code"), verifier}, true
}

// signInByCode goes to the page and redeems the code: once, again when the answer was
// lost, at several instances at once, or by somebody who has not the verifier.
func (p *person) signInByCode(ctx context.Context) bool {
	var err error
	if p.browser == nil {
		if p.browser, err = p.newBrowser(); err != nil {
			return false
		}
	}
	verifier := fmt.Sprintf("%016x%016x%016x", p.dice.Uint64(), p.dice.Uint64(), p.dice.Uint64())
	began := p.history.now()
	c, given := p.browser.authorize(verifier)
	if !given {
		pause()
		return false
	}
	p.grant, p.session, p.dead, p.code = p.next(), "", false, c
	b := birth{Grant: p.grant, Person: p.number, Client: p.client(), Code: true, Start: began, End: never}
	defer func() {
		b.Session = p.session
		p.history.birth(b)
	}()
	if p.dice.IntN(8) == 0 {
		p.guess(c)
	}
	if p.dice.IntN(6) == 0 {
		var all sync.WaitGroup
		for range 2 + p.dice.IntN(2) {
			i := p.any()
			all.Go(func() { p.exchangeAt(i, c, false) })
		}
		all.Wait()
		p.dead = len(p.tokens) > 0 // by the replays, unless they had no answer
		b.End = p.history.now()
		return len(p.tokens) > 0
	}
	for began := time.Now(); time.Since(began) < p.world.patience(); pause() {
		switch p.exchangeAt(p.any(), c, p.dice.IntN(10) == 0) {
		case ok:
			b.End = p.history.now()
			return true
		case invalid: // of an answer that was lost nobody has the tokens but a thief
			p.dead = true
			b.End = p.history.now()
			return len(p.tokens) > 0
		}
		if ctx.Err() != nil {
			return false
		}
	}
	p.history.violation(4, "nobody redeems the code of grant %d for %s", p.grant, p.world.patience())
	return false
}

// guess presents a code without its verifier: it is refused, and the code stays good.
func (p *person) guess(c code) {
	a := p.post(p.any(), "/token", url.Values{"grant_type": {"authorization_code"}, "code": {c.raw}, "redirect_uri": {process.RedirectURI},
		"code_verifier": {strings.Repeat("x", 43)}})
	if p.history.watched(2); a.Status == http.StatusOK {
		p.history.violation(2, "a code was redeemed without its verifier")
	}
}

// exchangeAt redeems a code at an instance. The tokens of a lost answer are kept as
// well, for a thief.
func (p *person) exchangeAt(i *instance, c code, lost bool) outcome {
	h := p.history
	one := call{Grant: p.grant, Kind: exchange, Instance: i.number, Start: h.now(), Outcome: unknown}
	a := p.post(i, "/token", url.Values{"grant_type": {"authorization_code"}, "code": {c.raw}, "redirect_uri": {process.RedirectURI}, "code_verifier": {c.verifier}})
	one.End, one.Status, one.Note = h.now(), a.Status, a.Body.Error
	switch {
	case a.Status == http.StatusOK:
		one.Outcome, one.Successor, one.Got = ok, 1, identity(a.Body.Refresh)
		one.Key = keyOf(a.Body.Access)
		if lost {
			one.Outcome, one.Successor, one.Note = unknown, 0, "the answer was lost"
		}
		remembering.Lock()
		p.took(a)
		p.session = sessionOf(a.Body.Access)
		remembering.Unlock()
	case a.Status == http.StatusBadRequest && a.Body.Error == "invalid_grant":
		one.Outcome = invalid
	}
	h.record(one)
	return one.Outcome
}
