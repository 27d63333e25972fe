package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"authserver/bench/internal/process"
)

// answer is what a client got.
type answer struct {
	Status int
	Body   struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Error   string `json:"error"`
		Active  bool   `json:"active"`
	}
}

// post sends a form to one instance. A failed connection is an answer of status 0.
func (w *world) post(i *instance, path string, form url.Values) answer {
	return w.postFrom(0, i, path, form)
}

// postFrom sends a form as if through a proxy, from an address of a person's own:
// sign-ins are slowed down by address.
func (w *world) postFrom(person int, i *instance, path string, form url.Values) answer {
	var a answer
	request, err := http.NewRequest(http.MethodPost, "http://localhost:"+i.port+path, strings.NewReader(form.Encode()))
	if err != nil {
		return a
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", person+1))
	request.SetBasicAuth(process.ClientID, process.Secret)
	response, err := w.client.Do(request)
	if err != nil {
		return a
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return answer{}
	}
	if len(body) > 0 && json.Unmarshal(body, &a.Body) != nil {
		return answer{}
	}
	a.Status = response.StatusCode
	return a
}

// token is a refresh token and its generation.
type token struct {
	raw        string
	generation int
}

// person owns one grant after the other and does with them what people, their
// applications and thieves do.
type person struct {
	number  int
	world   *world
	history *history
	dice    *rand.Rand
	next    func() int // numbers grants

	grant  int
	tokens []token // the last one is the current one
	access []string
	dead   bool
}

// live goes through a number of calls.
func (p *person) live(ctx context.Context, steps int) {
	for range steps {
		if ctx.Err() != nil {
			return
		}
		if len(p.tokens) == 0 && !p.signIn(ctx) {
			return
		}
		p.act(ctx)
	}
}

func (p *person) act(ctx context.Context) {
	current := p.tokens[len(p.tokens)-1]
	switch n := p.dice.IntN(100); {
	case p.dead && n < 40:
		p.forget()
	case p.dead:
		p.present(p.tokens[p.dice.IntN(len(p.tokens))], false)
	case n < 60:
		p.keepRefreshing(ctx, current, p.dice.IntN(10) == 0)
	case n < 72: // several tabs at once
		var all sync.WaitGroup
		for range 2 + p.dice.IntN(3) {
			i := p.any()
			all.Go(func() { p.presentTo(i, current, false) })
		}
		all.Wait()
		p.keepRefreshing(ctx, current, false)
	case n < 82:
		p.introspect(introspectToken, current.raw, current.generation)
	case n < 92:
		p.introspect(introspectAccess, p.access[p.dice.IntN(len(p.access))], 0)
	case n < 95 && len(p.tokens) > 2: // a thief with an old one
		if p.present(p.tokens[p.dice.IntN(len(p.tokens)-2)], false) == invalid {
			p.dead = true
		}
	case n < 97:
		if p.revoke(current) {
			p.dead = true
		}
	default:
		p.forget()
	}
}

func (p *person) forget() { p.tokens, p.access, p.dead = nil, nil, false }

// any is an instance, whether it is up or not.
func (p *person) any() *instance { return p.world.instances[p.dice.IntN(len(p.world.instances))] }

// signIn begins a grant. What becomes of an unanswered sign-in nobody knows or needs to.
func (p *person) signIn(ctx context.Context) bool {
	for ctx.Err() == nil {
		a := p.world.postFrom(p.number, p.any(), "/token", url.Values{"grant_type": {"password"}, "username": {fmt.Sprintf("user%d", p.number)},
			"password": {process.Password}, "scope": {"orders:read"}})
		switch a.Status {
		case http.StatusOK:
			p.grant, p.dead = p.next(), false
			p.took(a)
			return true
		case 0, http.StatusServiceUnavailable, http.StatusTooManyRequests:
			pause()
		default:
			p.history.violation("I10: a sign-in was answered with %d %s", a.Status, a.Body.Error)
			return false
		}
	}
	return false
}

// took keeps the tokens of an answer.
func (p *person) took(a answer) {
	p.tokens = append(p.tokens, token{a.Body.Refresh, generationOf(a.Body.Refresh)})
	p.access = append(p.access, a.Body.Access)
}

func generationOf(refreshToken string) int {
	var claims struct {
		Generation int `json:"gen"`
	}
	if parts := strings.Split(refreshToken, "."); len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		json.Unmarshal(payload, &claims)
	}
	return claims.Generation
}

// patience is how long a client repeats a request that is not answered.
const patience = 25 * time.Second

// keepRefreshing repeats a refresh with the same token until there is an answer, as
// clients do. Lost says that the first answer gets lost on its way.
func (p *person) keepRefreshing(ctx context.Context, t token, lost bool) {
	for began := time.Now(); time.Since(began) < patience; {
		switch p.present(t, lost) {
		case ok:
			return
		case invalid:
			p.dead = true // whether it may be is for the model to say
			return
		}
		lost = false
		if ctx.Err() != nil && time.Since(began) > 5*time.Second {
			return
		}
		pause()
	}
	p.history.violation("I4: nobody answers grant %d for %s", p.grant, patience)
}

func pause() { time.Sleep(30 * time.Millisecond) }

// present shows a refresh token to any instance.
func (p *person) present(t token, lost bool) outcome { return p.presentTo(p.any(), t, lost) }

func (p *person) presentTo(i *instance, t token, lost bool) outcome {
	h := p.history
	c := call{Grant: p.grant, Kind: refresh, Generation: t.generation, Instance: i.number, Start: h.now()}
	a := p.world.post(i, "/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.raw}})
	c.End, c.Status, c.Outcome, c.Note = h.now(), a.Status, unknown, a.Body.Error
	switch {
	case a.Status == http.StatusOK:
		c.Outcome, c.Successor = ok, generationOf(a.Body.Refresh)
		h.succeeded(t.raw, a.Body.Refresh)
		p.verifies(a.Body.Access)
		if lost {
			c.Outcome, c.Successor, c.Note = unknown, 0, "the answer was lost"
		} else if last := p.lastGeneration(); c.Successor == last+1 {
			p.remember(a)
		}
	case a.Status == http.StatusBadRequest && a.Body.Error == "invalid_grant":
		c.Outcome = invalid
	case a.Status != 0 && a.Status != http.StatusServiceUnavailable:
		h.violation("I10: a refresh was answered with %d %s", a.Status, a.Body.Error)
	}
	h.record(c)
	return c.Outcome
}

// Parallel calls of one person remember one successor.
var remembering sync.Mutex

func (p *person) lastGeneration() int {
	remembering.Lock()
	defer remembering.Unlock()
	return p.tokens[len(p.tokens)-1].generation
}

func (p *person) remember(a answer) {
	remembering.Lock()
	defer remembering.Unlock()
	if p.tokens[len(p.tokens)-1].generation < generationOf(a.Body.Refresh) {
		p.took(a)
	}
}

func (p *person) introspect(k kind, raw string, generation int) {
	h, i := p.history, p.any()
	c := call{Grant: p.grant, Kind: k, Generation: generation, Instance: i.number, Start: h.now(), Outcome: unknown}
	a := p.world.post(i, "/introspect", url.Values{"token": {raw}})
	c.End, c.Status = h.now(), a.Status
	switch a.Status {
	case http.StatusOK:
		if c.Outcome = inactive; a.Body.Active {
			c.Outcome = active
		}
	case 0, http.StatusServiceUnavailable:
	default:
		h.violation("I10: introspection was answered with %d %s", a.Status, a.Body.Error)
	}
	h.record(c)
}

func (p *person) revoke(t token) bool {
	h, i := p.history, p.any()
	c := call{Grant: p.grant, Kind: revoke, Generation: t.generation, Instance: i.number, Start: h.now(), Outcome: unknown}
	a := p.world.post(i, "/revoke", url.Values{"token": {t.raw}})
	c.End, c.Status = h.now(), a.Status
	switch a.Status {
	case http.StatusOK:
		c.Outcome = ok
	case 0, http.StatusServiceUnavailable:
	default:
		h.violation("I10: a revocation was answered with %d %s", a.Status, a.Body.Error)
	}
	h.record(c)
	return c.Outcome == ok
}

// verifies checks I6 and I7: a token that was just issued verifies offline. That nobody
// could be asked for the first keys is no refusal, nor is it that the grant has ended.
func (p *person) verifies(access string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := p.world.verifier.Verify(ctx, access); err != nil && !strings.Contains(err.Error(), "revoked") && !strings.Contains(err.Error(), "temporarily_unavailable") {
		p.history.violation("I7: a token does not verify: %v", err)
	}
}

// settle is what must hold when all trouble is over: who has not been signed out goes
// on, and who has does not.
func (p *person) settle(ctx context.Context) {
	if len(p.tokens) == 0 {
		return
	}
	for range 2 {
		p.keepRefreshing(ctx, p.tokens[len(p.tokens)-1], false)
	}
	p.introspect(introspectAccess, p.access[0], 0)
	for _, t := range p.tokens {
		if p.dead {
			p.present(t, false)
		}
	}
}

// watchKeys checks I13 until ctx ends: an instance that is up serves its keys whatever
// the store does.
func watchKeys(ctx context.Context, w *world, h *history, i *instance) (fetched int) {
	for ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		if !i.up() {
			continue
		}
		response, err := w.client.Get(fmt.Sprintf("http://localhost:%s/.well-known/jwks.json", i.port))
		if err != nil { // it may have just gone
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK || err == nil && !strings.Contains(string(body), `"kid"`) {
			h.violation("I13: the key set was answered with %s", response.Status)
		}
		if strings.Contains(string(body), `"d"`) {
			h.violation("I8: a private key left the server")
		}
		fetched++
	}
	return fetched
}
