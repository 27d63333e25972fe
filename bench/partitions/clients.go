package main

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"authserver/bench/internal/process"
)

// grant is what one client holds.
type grant struct {
	previous, current string // refresh tokens
	access            string
	other             string // another successor of the token before, from another server
	revoked, ended    bool   // ended is: lost, and counted
}

// signIn makes grants.
func (n *network) signIn(count int) ([]*grant, error) {
	grants := make([]*grant, 0, count)
	for i := range count {
		form := url.Values{"grant_type": {"password"}, "username": {fmt.Sprint("user", i)}, "password": {process.Password}}
		var a answer
		if err := await("nobody can sign in", func() bool { a = n.post(i, i%machines, "/token", form); return a.Status == 200 }); err != nil {
			return nil, fmt.Errorf("%w: %d %s", err, a.Status, a.Body.Error)
		}
		grants = append(grants, &grant{current: a.Body.RefreshToken, access: a.Body.AccessToken})
	}
	return grants, nil
}

func (n *network) refresh(machine int, token string) answer {
	return n.post(0, machine, "/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// refreshUntil moves a grant on, at any server, and asks again where no answer came.
func (n *network) refreshUntil(g *grant, total *found, dice *rand.Rand, over func() bool) {
	for !over() && !g.ended {
		n.take(g, n.refresh(dice.IntN(machines), g.current), total)
		time.Sleep(50 * time.Millisecond)
	}
}

// take moves a grant on by an answer.
func (n *network) take(g *grant, a answer, total *found) {
	switch a.Status {
	case 200:
		total.add(&total.refreshes)
		g.previous, g.current, g.access = g.current, a.Body.RefreshToken, a.Body.AccessToken
	case 400:
		g.ended = true
		total.add(&total.signedOut)
	default:
		total.add(&total.refused)
	}
}

// raceUntil presents each token to two servers at once.
func (n *network) raceUntil(g *grant, total *found, dice *rand.Rand, over func() bool) {
	for !over() && !g.ended {
		first := dice.IntN(machines)
		second := (first + 1 + dice.IntN(machines-1)) % machines
		token, answers := g.current, make(chan answer, 1)
		go func() { answers <- n.refresh(second, token) }()
		a := n.refresh(first, token)
		b := <-answers
		if a.Status != 200 {
			a, b = b, a
		}
		n.take(g, a, total)
		if a.Status == 200 && b.Status == 200 {
			total.add(&total.raced)
			if b.Body.RefreshToken != a.Body.RefreshToken { // only one may be good
				g.other = b.Body.RefreshToken
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// revokeAndWatch revokes a grant, and from then on no server may take it.
func (n *network) revokeAndWatch(g *grant, total *found, dice *rand.Rand, over func() bool) {
	for !g.ended {
		a := n.post(0, dice.IntN(machines), "/revoke", url.Values{"token": {g.current}})
		if a.Status == 200 {
			g.revoked = true
			total.add(&total.revocations)
			break
		}
		total.add(&total.refused)
		if over() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	for !over() && !g.ended {
		n.lostAt(g, dice.IntN(machines), total)
		time.Sleep(100 * time.Millisecond)
	}
}

// lostAt counts a revocation that a server does not know.
func (n *network) lostAt(g *grant, machine int, total *found) {
	introspected := n.post(0, machine, "/introspect", url.Values{"token": {g.access}})
	if n.refresh(machine, g.current).Status == 200 || introspected.Status == 200 && introspected.Body.Active {
		g.ended = true
		total.add(&total.lost)
	}
}

// settle looks, in peace, at what is left of a grant.
func (n *network) settle(g *grant, total *found) {
	for machine := range machines {
		if g.revoked && !g.ended {
			n.lostAt(g, machine, total)
		}
	}
	if g.revoked || g.ended {
		return
	}
	// Whoever revoked without an answer may have revoked or not: it is one or the other.
	good := n.answered(g.current)
	if g.other != "" {
		if other := n.answered(g.other); good.Status == 200 && other.Status == 200 && good.Body.RefreshToken != other.Body.RefreshToken {
			total.add(&total.twice)
		}
		return
	}
	if good.Status != 200 {
		total.add(&total.signedOut)
		return
	}
	if g.previous == "" {
		return
	}
	// What was spent two generations ago is spent.
	if n.answered(g.previous).Status == 200 {
		total.add(&total.twice)
	}
}

// answered refreshes until there is an answer.
func (n *network) answered(token string) (a answer) {
	await("no answer", func() bool { a = n.refresh(0, token); return a.Status == 200 || a.Status == 400 })
	return a
}
