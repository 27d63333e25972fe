package authserver

import (
	"container/list"
	"sync"
	"time"
)

// Wrong secrets of clients are counted for throttleWindow, by the client_id that was given,
// known or not, and by the network that they come from (ATTACKS BF-07; RFC 6749 §2.3.1). Beyond
// the free ones, each further attempt must wait twice as long as the one before.
//
// Nobody who knows a client_id keeps the client out. A secret of 32 characters or more cannot
// be guessed, so that the right one always passes. A shorter one, of which the
// configuration warns, is not even looked at while its network has to wait: only there, and
// else nowhere, can somebody keep the client waiting.
const (
	freePerGuesser = 10
	maxGuessers    = 16384
	longSecret     = 32 // characters
)

// guesses are those at this instance: they cost the store nothing, and no client needs it
// to authenticate. The longest ago are forgotten when there are too many; who comes from so
// many networks is not slowed down by network.
type guesses struct {
	mu        sync.Mutex
	byGuesser map[string]*list.Element // by guesser
	latest    *list.List               // of *guessed, the longest ago first
}

type guessed struct {
	guesser string
	failed  int64
	at      time.Time // the last one
	next    time.Time // until when there is to be none
}

func newGuesses() *guesses {
	return &guesses{byGuesser: make(map[string]*list.Element), latest: list.New()}
}

func guesser(id, network string) string { return hashed(id + "\x00" + network) }

// attempt counts an attempt before anything is said of its secret, so that parallel
// ones cannot outrun the count, or says how long it is too early.
func (g *guesses) attempt(guesser string) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	place := g.byGuesser[guesser]
	if place == nil {
		if len(g.byGuesser) == maxGuessers {
			g.remove(g.latest.Front())
		}
		place = g.latest.PushBack(&guessed{guesser: guesser})
		g.byGuesser[guesser] = place
	}
	of := place.Value.(*guessed)
	if now.Before(of.next) {
		return of.next.Sub(now)
	}
	if now.Sub(of.at) > throttleWindow {
		of.failed = 0
	}
	of.failed++
	of.at = now
	if of.failed > freePerGuesser {
		of.next = now.Add(delayAfter(of.failed - freePerGuesser))
	}
	g.latest.MoveToBack(place)
	return 0
}

// forget forgets the attempts of a network that has the secret.
func (g *guesses) forget(guesser string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if place := g.byGuesser[guesser]; place != nil {
		g.remove(place)
	}
}

func (g *guesses) remove(place *list.Element) {
	delete(g.byGuesser, place.Value.(*guessed).guesser)
	g.latest.Remove(place)
}
