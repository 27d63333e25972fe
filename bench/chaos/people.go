package main

import (
	"context"
	"crypto/sha256"
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

// decision reports whether the server has said yes or no, which it only may when it knows.
func (a answer) decision() bool {
	return a.Status == http.StatusOK || a.Status == http.StatusBadRequest
}

// post sends a form to one instance as if through a proxy, from an address of a
// person's own: sign-ins are slowed down by address. A failed connection is an answer
// of status 0. What is no decision says so (I10), and no answer holds a private key (I8).
func (p *person) post(i *instance, path string, form url.Values) answer {
	var a answer
	request, err := http.NewRequest(http.MethodPost, "http://localhost:"+i.port+path, strings.NewReader(form.Encode()))
	if err != nil {
		return a
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("X-Forwarded-For", p.address())
	request.SetBasicAuth(p.client(), process.Secret)
	response, err := p.world.client.Do(request)
	if err != nil {
		return a
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return answer{}
	}
	p.history.searched(body)
	if len(body) > 0 && json.Unmarshal(body, &a.Body) != nil {
		return answer{}
	}
	a.Status = response.StatusCode
	switch {
	case a.Status == http.StatusServiceUnavailable || a.Status == http.StatusTooManyRequests:
		if p.history.watched(10); response.Header.Get("Retry-After") == "" {
			p.history.violation(10, "%s was answered with %s and no Retry-After", path, response.Status)
		}
	case !a.decision() || a.Status == http.StatusBadRequest && a.Body.Error != "invalid_grant":
		p.history.watched(10)
		p.history.violation(10, "%s was answered with %s %s", path, response.Status, a.Body.Error)
	}
	return a
}

// searched looks for the marks of a private key in something that left the server (I8).
func (h *history) searched(text []byte) {
	h.watched(8)
	for _, mark := range []string{`"d":`, "PRIVATE KEY"} {
		if strings.Contains(string(text), mark) {
			h.violation(8, "a private key left the server")
		}
	}
}

func (p *person) address() string { return fmt.Sprintf("192.0.2.%d", p.number+1) }

// client is the application that the person uses: every other one has another, all of
// which operators revoke now and then.
func (p *person) client() string {
	if p.number%2 == 1 {
		return otherClient
	}
	return process.ClientID
}

func (p *person) name() string { return fmt.Sprintf("user%d", p.number) }

// token is a refresh token and its generation.
type token struct {
	raw        string
	generation int
	stolen     bool // it is a thief who presents it
}

// person owns one grant after the other and does with them what people, their
// applications and thieves do.
type person struct {
	number  int
	world   *world
	history *history
	dice    *rand.Rand
	next    func() int // numbers grants

	browser *browser // with cookies; nil before the first sign-in with a page
	code    code     // that began the grant; zero if it was a password
	grant   int
	session string
	tokens  []token // the last one is the current one
	access  []string
	dead    bool
	past    []held // grants that the person has forgotten
}

// held is what is left of a grant that the person does not use any more.
type held struct {
	grant   int
	session string
	token   token
	access  string
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
	if p.world.scenario.sessions {
		p.actInSession(ctx, current)
		return
	}
	switch n := p.dice.IntN(100); {
	case p.dead && n < 40:
		p.forget()
	case p.dead && n < 60:
		p.introspect(p.grant, introspectAccess, p.anyAccess(), 0)
	case p.dead && n < 75:
		p.verify(ctx, p.grant, p.anyAccess())
	case p.dead:
		p.present(p.tokens[p.dice.IntN(len(p.tokens))], false)
	case n < 44:
		p.keepRefreshing(ctx, current, p.dice.IntN(10) == 0)
	case n < 54:
		p.inParallel(ctx, current)
	case n < 62:
		p.introspect(p.grant, introspectToken, current.raw, current.generation)
	case n < 70:
		p.introspect(p.grant, introspectAccess, p.anyAccess(), 0)
	case n < 80:
		p.verify(ctx, p.grant, p.anyAccess())
	case n < 84 && len(p.past) > 0:
		p.lookBack(ctx)
	case n < 87:
		p.steal()
	case n < 89 && p.code.raw != "":
		if p.exchangeAt(p.any(), p.code, false) == invalid {
			p.dead = true
		}
	case n < 91:
		if p.revoke(current) {
			p.dead = true
		}
	case n < 95:
		p.operate()
	default:
		p.forget()
	}
}

// actInSession refreshes, with a twentieth of the answers lost, and has a token stolen
// now and then.
func (p *person) actInSession(ctx context.Context, current token) {
	switch n := p.dice.IntN(1000); {
	case p.dead:
		p.forget()
	case n < 200:
		p.inParallel(ctx, current)
	case n < 203:
		p.steal()
	default:
		p.keepRefreshing(ctx, current, p.dice.IntN(20) == 0)
	}
}

// inParallel refreshes in several tabs at once.
func (p *person) inParallel(ctx context.Context, current token) {
	var all sync.WaitGroup
	for range 2 + p.dice.IntN(3) {
		i, lost := p.any(), p.dice.IntN(20) == 0
		all.Go(func() { p.presentTo(i, current, lost) })
	}
	all.Wait()
	p.keepRefreshing(ctx, current, false)
}

// steal has a thief present an old token.
func (p *person) steal() {
	if len(p.tokens) < 3 {
		return
	}
	old := p.tokens[p.dice.IntN(len(p.tokens)-2)]
	old.stolen = true
	if p.present(old, false) == invalid {
		p.dead = true
	}
}

func (p *person) anyAccess() string { return p.access[p.dice.IntN(len(p.access))] }

// lookBack shows what is left of an earlier grant.
func (p *person) lookBack(ctx context.Context) {
	one := p.past[p.dice.IntN(len(p.past))]
	if p.dice.IntN(2) == 0 {
		p.introspect(one.grant, introspectAccess, one.access, 0)
	} else {
		p.verify(ctx, one.grant, one.access)
	}
}

func (p *person) forget() {
	if n := len(p.tokens); n > 0 {
		p.past = append(p.past[max(0, len(p.past)-7):], held{p.grant, p.session, p.tokens[n-1], p.access[len(p.access)-1]})
	}
	p.code, p.tokens, p.access, p.dead = code{}, nil, nil, false
}

// any is an instance, whether it is up or not, but for one whose clock is wrong.
func (p *person) any() *instance {
	all := p.world.instances
	for n := p.dice.IntN(len(all)); ; n++ {
		if i := all[n%len(all)]; !i.avoided.Load() {
			return i
		}
	}
}

// signIn begins a grant, by a page and a code or by a password. What becomes of an
// unanswered sign-in nobody knows or needs to.
func (p *person) signIn(ctx context.Context) bool {
	for ctx.Err() == nil {
		if !p.world.scenario.sessions && p.dice.IntN(2) == 0 {
			if p.signInByCode(ctx) {
				return true
			}
			p.code, p.tokens, p.access, p.dead = code{}, nil, nil, false
			continue
		}
		b := birth{Person: p.number, Client: p.client(), Start: p.history.now()}
		a := p.post(p.any(), "/token", url.Values{"grant_type": {"password"}, "username": {p.name()},
			"password": {process.Password}, "scope": {"orders:read"}})
		if a.Status == http.StatusOK {
			b.Grant, b.End = p.next(), p.history.now()
			p.history.birth(b)
			p.grant, p.session, p.code, p.dead = b.Grant, "", code{}, false
			p.took(a)
			return true
		}
		pause()
	}
	return false
}

// took keeps the tokens of an answer.
func (p *person) took(a answer) {
	p.tokens = append(p.tokens, token{raw: a.Body.Refresh, generation: generationOf(a.Body.Refresh)})
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

// keyOf is the kid that signed a token.
func keyOf(token string) string {
	var header struct {
		KeyID string `json:"kid"`
	}
	first, _, _ := strings.Cut(token, ".")
	text, _ := base64.RawURLEncoding.DecodeString(first)
	json.Unmarshal(text, &header)
	return header.KeyID
}

// identity stands for a refresh token in a history: for its claims, since the same
// successor is signed by another key when that has rotated in between.
func identity(refreshToken string) string {
	claims := refreshToken
	if parts := strings.Split(refreshToken, "."); len(parts) == 3 {
		claims = parts[1]
	}
	hash := sha256.Sum256([]byte(claims))
	return base64.RawURLEncoding.EncodeToString(hash[:12])
}

// patience is how long a client repeats a request that is not answered. Sentinel takes
// its time, and twice `failover-timeout` more where its first try fails.
func (w *world) patience() time.Duration {
	if w.scenario.sentinel {
		return 90 * time.Second
	}
	return 25 * time.Second
}

// keepRefreshing repeats a refresh with the same token until there is an answer, as
// clients do. Lost says that the first answer gets lost on its way.
func (p *person) keepRefreshing(ctx context.Context, t token, lost bool) {
	for began := time.Now(); time.Since(began) < p.world.patience(); {
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
	p.history.violation(4, "nobody answers grant %d for %s", p.grant, p.world.patience())
}

func pause() { time.Sleep(30 * time.Millisecond) }

// present shows a refresh token to any instance.
func (p *person) present(t token, lost bool) outcome { return p.presentTo(p.any(), t, lost) }

func (p *person) presentTo(i *instance, t token, lost bool) outcome {
	h := p.history
	c := call{Grant: p.grant, Kind: refresh, Generation: t.generation, Theft: t.stolen, Instance: i.number, Start: h.now()}
	a := p.post(i, "/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {t.raw}})
	c.End, c.Status, c.Outcome, c.Note = h.now(), a.Status, unknown, a.Body.Error
	switch {
	case a.Status == http.StatusOK:
		c.Outcome, c.Successor = ok, generationOf(a.Body.Refresh)
		c.Got, c.Key = identity(a.Body.Refresh), keyOf(a.Body.Access)
		p.verifies(a.Body.Access)
		if lost {
			c.Outcome, c.Successor, c.Note = unknown, 0, "the answer was lost"
		} else if last := p.lastGeneration(); c.Successor == last+1 {
			p.remember(a)
		}
	case a.Status == http.StatusBadRequest && a.Body.Error == "invalid_grant":
		c.Outcome = invalid
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

func (p *person) introspect(grant int, k kind, raw string, generation int) {
	p.introspectAt(p.any(), grant, k, raw, generation)
}

func (p *person) introspectAt(i *instance, grant int, k kind, raw string, generation int) {
	h := p.history
	c := call{Grant: grant, Kind: k, Generation: generation, Instance: i.number, Start: h.now(), Outcome: unknown}
	if k == introspectAccess {
		c.Key = keyOf(raw)
	}
	a := p.post(i, "/introspect", url.Values{"token": {raw}})
	c.End, c.Status = h.now(), a.Status
	if a.Status == http.StatusOK {
		if c.Outcome = inactive; a.Body.Active {
			c.Outcome = active
		}
	}
	h.record(c)
}

func (p *person) revoke(t token) bool {
	h, i := p.history, p.any()
	c := call{Grant: p.grant, Kind: revoke, Generation: t.generation, Instance: i.number, Start: h.now(), Outcome: unknown}
	a := p.post(i, "/revoke", url.Values{"token": {t.raw}})
	c.End, c.Status = h.now(), a.Status
	if a.Status == http.StatusOK {
		c.Outcome = ok
	}
	h.record(c)
	return c.Outcome == ok
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
	p.introspect(p.grant, introspectAccess, p.access[0], 0)
	for _, t := range p.tokens {
		if p.dead {
			p.present(t, false)
		}
	}
	for _, one := range p.past {
		p.introspect(one.grant, introspectAccess, one.access, 0)
	}
	p.verifiable(ctx, p.access[len(p.access)-1])
	for range 3 {
		p.verify(ctx, p.grant, p.anyAccess())
	}
}
