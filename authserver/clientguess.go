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
// to authenticate. When there are too many, the longest ago are forgotten, those last that have
// to wait: who makes up a client_id for each request gets rid of no wait.
type guesses struct {
	mu           sync.Mutex
	byGuesser    map[string]*list.Element // by guesser
	free, slowed *list.List               // of *guessed, the longest ago first; slowed are those beyond the free ones
}

type guessed struct {
	guesser string
	failed  int64
	at      time.Time // the last one
	next    time.Time // until when there is to be none
}

func newGuesses() *guesses {
	return &guesses{byGuesser: make(map[string]*list.Element), free: list.New(), slowed: list.New()}
}

func guesser(id, network string) string { return hashed(id + "\x00" + network) }

// attempt returns how long an attempt is too early. One that is not is counted, or, where
// the secret is right, forgotten with all before it.
func (g *guesses) attempt(guesser string, right bool) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, of := time.Now(), &guessed{guesser: guesser}
	if place := g.byGuesser[guesser]; place != nil {
		of = place.Value.(*guessed)
		if now.Before(of.next) {
			return of.next.Sub(now)
		}
		g.remove(place)
	}
	if right {
		return 0
	}
	if len(g.byGuesser) == maxGuessers {
		oldest := g.free.Front()
		if oldest == nil {
			oldest = g.slowed.Front()
		}
		g.remove(oldest)
	}
	if now.Sub(of.at) > throttleWindow {
		of.failed = 0
	}
	of.failed++
	of.at = now
	kind := g.free
	if of.failed > freePerGuesser {
		of.next = now.Add(delayAfter(of.failed - freePerGuesser))
		kind = g.slowed
	}
	g.byGuesser[guesser] = kind.PushBack(of)
	return 0
}

func (g *guesses) remove(place *list.Element) {
	delete(g.byGuesser, place.Value.(*guessed).guesser)
	g.free.Remove(place) // which does nothing in a list that it is not in
	g.slowed.Remove(place)
}
