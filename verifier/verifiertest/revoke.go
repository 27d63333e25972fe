package verifiertest

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
)

// revocations is the issuer's feed: one log of entries that every connection reads.
type revocations struct {
	issuer *Issuer
	stream string
	began  time.Time
	ended  chan struct{}

	mu      sync.Mutex
	entries []feed.Entry
	cursors []feed.Cursor // cursors[n] is after n entries
	grown   chan struct{} // closed and replaced when entries grow
	stopped bool
	over    bool
	set     *feed.Set // of all entries, for introspection
}

func newRevocations(i *Issuer) *revocations {
	return &revocations{issuer: i, stream: "1", began: time.Now(), ended: make(chan struct{}), cursors: []feed.Cursor{feed.Origin}, grown: make(chan struct{}), set: feed.NewSet()}
}

// RevokeToken revokes one access token, by its jti.
func (i *Issuer) RevokeToken(jti string) { i.feed.add(feed.NewEntry(feed.Token, jti, time.Hour, 0)) }

// RevokeGrant revokes all tokens of a grant, by its grant_id.
func (i *Issuer) RevokeGrant(id string) { i.feed.add(feed.NewEntry(feed.Grant, id, time.Hour, 0)) }

// RevokeSession revokes all tokens of a session, by its sid.
func (i *Issuer) RevokeSession(id string) { i.feed.add(feed.NewEntry(feed.Session, id, time.Hour, 0)) }

// RevokeSubject revokes all tokens of a user that were issued until now, by sub.
func (i *Issuer) RevokeSubject(sub string) {
	i.feed.add(feed.NewEntry(feed.Subject, sub, time.Hour, time.Now().Unix()))
}

// RevokeClient revokes all tokens of a client that were issued until now, by client_id.
func (i *Issuer) RevokeClient(id string) {
	i.feed.add(feed.NewEntry(feed.Client, id, time.Hour, time.Now().Unix()))
}

// RevokeSubjectEpoch revokes the tokens of a user whose claim sub_epoch is epoch: as the
// server does for the epochs before the one that begins, when all of a user is ended.
func (i *Issuer) RevokeSubjectEpoch(sub string, epoch uint64) {
	i.feed.add(feed.NewEntry(feed.SubjectEpoch, feed.EpochOf(sub, epoch), time.Hour, 0))
}

// RevokeClientEpoch is RevokeSubjectEpoch of a client, by client_epoch.
func (i *Issuer) RevokeClientEpoch(id string, epoch uint64) {
	i.feed.add(feed.NewEntry(feed.ClientEpoch, feed.EpochOf(id, epoch), time.Hour, 0))
}

// RevokeKey revokes all tokens that the present key has signed, and lets the next
// one sign. The present one is not published any more.
func (i *Issuer) RevokeKey() {
	id := i.current().id
	i.Rotate()
	i.mu.Lock()
	i.keys = i.keys[len(i.keys)-2:]
	i.mu.Unlock()
	i.feed.add(feed.NewEntry(feed.KeyID, id, time.Hour, 0))
}

func (r *revocations) add(e feed.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
	r.set.Add([]feed.Entry{e})
	r.cursors = append(r.cursors, feed.CursorOf(uint64(len(r.entries)), fmt.Append(nil, e)))
	close(r.grown)
	r.grown = make(chan struct{})
}

// StopFeed cuts all connections to the feed, and it answers no more until StartFeed.
func (i *Issuer) StopFeed() {
	i.feed.mu.Lock()
	i.feed.stopped = true
	close(i.feed.grown)
	i.feed.grown = make(chan struct{})
	i.feed.mu.Unlock()
}

// StartFeed is the end of StopFeed.
func (i *Issuer) StartFeed() {
	i.feed.mu.Lock()
	i.feed.stopped = false
	i.feed.mu.Unlock()
}

func (r *revocations) isStopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}

func (r *revocations) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.over = true
		close(r.ended)
	}
}

// since returns the frame of what came after a number of entries, unless the feed is stopped:
// nothing that is added after that is told.
func (r *revocations) since(n int) (frame feed.Frame, next int, grown <-chan struct{}, stopped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next = min(len(r.entries), n+feed.MaxFrame)
	frame = feed.Frame{Issuer: r.issuer.URL, Stream: r.stream, After: r.cursors[n], Cursor: r.cursors[next], Revoked: r.entries[n:next]}
	if next == len(r.entries) {
		frame.AsOf = time.Since(r.began).Milliseconds()
	}
	return frame, next, r.grown, r.stopped
}

func (r *revocations) serve(w http.ResponseWriter, request *http.Request) {
	if r.isStopped() {
		http.Error(w, "the feed was stopped", http.StatusServiceUnavailable)
		return
	}
	if !strings.Contains(request.Header.Get("Accept"), "text/event-stream") {
		r.snapshot(w)
		return
	}
	at := r.position(feed.Cursor(request.Header.Get("Last-Event-ID")))
	if at < 0 {
		http.Error(w, "unknown cursor", http.StatusGone)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	heartbeat := time.NewTicker(feed.Heartbeat)
	defer heartbeat.Stop()
	for first := true; ; first = false {
		frame, next, grown, stopped := r.since(at)
		if stopped {
			return
		}
		if first {
			frame.Nonce, frame.Clock = request.URL.Query().Get("nonce"), time.Since(r.began).Milliseconds()
		}
		token, err := sign(r.issuer.current(), feed.FrameType, frame)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "id: %s\ndata: %s\n\n", frame.Cursor, token); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		at = next
		select {
		case <-grown:
		case <-heartbeat.C:
		case <-r.ended:
			return
		case <-request.Context().Done():
			return
		}
	}
}

// position is how many entries come before a cursor, or -1.
func (r *revocations) position(cursor feed.Cursor) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, known := range r.cursors {
		if known == cursor {
			return n
		}
	}
	return -1
}

func (r *revocations) snapshot(w http.ResponseWriter) {
	r.mu.Lock()
	entries, cursor := feed.Entries(r.entries), r.cursors[len(r.entries)]
	r.mu.Unlock()
	encoded := entries.Encode()
	description := feed.Snapshot{Issuer: r.issuer.URL, Cursor: cursor, Count: len(entries), Digest: feed.Digest(encoded)}
	token, err := sign(r.issuer.current(), feed.SnapshotType, description)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, feed.SnapshotBody{Snapshot: token, Revoked: base64.RawURLEncoding.EncodeToString(encoded)})
}

// introspect answers RFC 7662 requests of anybody about tokens of this issuer,
// which it trusts to be so: whoever asks has checked the signature.
func (i *Issuer) introspect(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.PostFormValue("token"), ".")
	if len(parts) != 3 {
		writeJSON(w, map[string]bool{"active": false})
		return
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims accesstoken.Claims
	if err == nil {
		claims, err = accesstoken.Decode(payload)
	}
	_, revoked := i.feed.set.Revoked(feed.SubjectsOf("", &claims))
	writeJSON(w, map[string]bool{"active": err == nil && !revoked && claims.Expires > time.Now().Unix()})
}
