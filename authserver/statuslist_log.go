package authserver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
)

// issuedLog is the log of the tokens that have a place in a status list: what each
// could be revoked by. All instances follow it, so any of them serves any list.
const issuedLog = "issued"

const (
	listBits = 17
	listSize = 1 << listBits // places in a list
)

// statusLists gives tokens their places. Each run of a server fills lists of its
// own, so that instances need not agree, in an order that only it knows, so that
// places tell nobody who came when.
type statusLists struct {
	server *Server

	mu    sync.Mutex
	asOf  time.Time // up to which all of issuedLog is known here
	id    string    // of the list that is being filled here
	used  int       // its places
	order [8]uint32 // keys of its order
	lists map[string]*issuedList
}

// issuedList is what is known of one list.
type issuedList struct {
	places map[uint32]issuedToken
	served served
}

// issuedToken is a token that has not expired.
type issuedToken struct {
	subjects feed.Subjects
	expires  int64
}

// issuedEvent is one event of issuedLog.
type issuedEvent struct {
	List     string        `json:"list"`
	Index    uint32        `json:"idx"`
	Subjects feed.Subjects `json:"subjects"`
	Expires  int64         `json:"exp"`
}

func newStatusLists(s *Server) *statusLists {
	l := &statusLists{server: s, lists: make(map[string]*issuedList)}
	l.begin()
	return l
}

// begin begins a new list. The caller holds l.mu, but for the first.
func (l *statusLists) begin() {
	l.id, l.used = newID(), 0
	var random [4 * len(l.order)]byte
	rand.Read(random[:])
	for i := range l.order {
		l.order[i] = binary.BigEndian.Uint32(random[4*i:])
	}
}

// place returns a place that no token has.
func (l *statusLists) place() *accesstoken.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used == listSize {
		l.begin()
	}
	index := shuffle(uint32(l.used), l.order)
	l.used++
	return &accesstoken.Status{List: accesstoken.StatusListEntry{Index: index, URI: l.uri(l.id)}}
}

// shuffle is a permutation of the places: rounds of adding, multiplying by an odd
// number and mixing high bits into low ones, each of which can be undone modulo 2^17.
func shuffle(n uint32, order [8]uint32) uint32 {
	for _, key := range order {
		n = (n + key) % listSize
		n = n * (key>>8 | 1) % listSize
		n ^= n >> (listBits/2 + 1)
	}
	return n
}

// note logs a token that has a place, before it is handed out.
func (l *statusLists) note(ctx context.Context, token string, claims accesstoken.Claims) error {
	if claims.Status == nil {
		return nil
	}
	parsed, err := intake.Parse(token)
	if err != nil {
		return fmt.Errorf("reading a token of ours: %w", err)
	}
	uri := claims.Status.List.URI
	event, err := json.Marshal(issuedEvent{List: uri[len(l.uri("")):], Index: claims.Status.List.Index,
		Subjects: feed.SubjectsOf(parsed.KeyID, &claims), Expires: claims.Expires})
	if err != nil {
		return fmt.Errorf("encoding a token's place in a status list: %w", err)
	}
	if _, err := l.server.store.Append(ctx, issuedLog, event, l.server.keys.LongestToken()+revocationSlack); err != nil {
		return unavailable(fmt.Errorf("logging a token's place in a status list: %w", err))
	}
	return nil
}

// follow reads issuedLog until ctx ends, where some resource has status lists.
func (l *statusLists) follow(ctx context.Context) {
	if !l.server.resources.anyListed() {
		return
	}
	log := logReader{store: l.server.store, name: issuedLog, looked: time.Now()}
	trouble, swept := false, time.Now()
	for ctx.Err() == nil {
		events, asOf, err := log.next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !trouble {
				l.server.log.Error("the log of tokens in status lists cannot be read", "error", err)
			}
			trouble = true
			pause(ctx, tailRetry)
			continue
		}
		trouble = false
		for _, event := range events {
			l.take(event.Value)
		}
		l.complete(asOf)
		if time.Since(swept) > expireEvery {
			l.sweep(time.Now().Add(-revocationSlack).Unix())
			swept = time.Now()
		}
	}
}

// complete notes that all tokens that were handed out up to asOf have their places.
func (l *statusLists) complete(asOf time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if asOf.After(l.asOf) {
		l.asOf = asOf
	}
}

func (l *statusLists) take(event []byte) {
	var issued issuedEvent
	if err := json.Unmarshal(event, &issued); err != nil || issued.Index >= listSize {
		l.server.log.Error("an event in the log of tokens in status lists is damaged", "error", err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.lists[issued.List]
	if list == nil {
		list = &issuedList{places: make(map[uint32]issuedToken)}
		l.lists[issued.List] = list
	}
	list.places[issued.Index] = issuedToken{issued.Subjects, issued.Expires}
}

// sweep forgets tokens that expired before an instant, and lists without any.
func (l *statusLists) sweep(before int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, list := range l.lists {
		for index, token := range list.places {
			if token.expires < before {
				delete(list.places, index)
			}
		}
		if len(list.places) == 0 {
			delete(l.lists, id)
		}
	}
}
