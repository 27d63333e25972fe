package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"authserver/store"
)

// Back-channel logout (OpenID Connect Back-Channel Logout 1.0): each client that got
// tokens in a session that has ended is told so by a signed logout token.
//
// Nobody waits for a client. A notification is a record in the store, made before
// the session ends, so that neither a crash nor a client that is down loses it; any
// instance may send it. To take one is to write, by a swap, when it would be sent
// the next time: who wins sends, and if he dies another takes his turn.
type backchannel struct {
	server *Server
	table  store.Table[notification]
	turns  chan struct{} // bounds how many are sent at once
	wake   chan struct{}

	sending sync.WaitGroup
	mu      sync.Mutex
	busy    map[string]bool // clients that are being told, by id
}

// notification is one logout token to be sent. The token is made when it is sent,
// so that it is never too old.
type notification struct {
	ClientID string `json:"client_id"`
	Subject  string `json:"sub"`
	Session  string `json:"sid"`
	Tries    int    `json:"tries"`
	NotUntil int64  `json:"not_until"` // milliseconds since 1970; it is not sent before
}

const (
	notificationIndex = "logouts"
	notificationEvery = 2 * time.Second // how often the store is asked what is due
	parallelLogouts   = 16
	logoutsPerClient  = 2               // of these: one that does not answer holds up itself only
	mostDue           = 1000            // of one client, that are looked at together
	logoutTokenType   = "logout+jwt"    // Back-Channel Logout §2.4
	logoutTokenLife   = 2 * time.Minute // likewise
	logoutEvent       = "http://schemas.openid.net/event/backchannel-logout"
)

// notificationWaits are how long to wait after each attempt that failed. After the
// last one the client is given up on, and the log says so.
var notificationWaits = []time.Duration{10 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute}

const notificationKept = 2 * time.Hour // longer than all waits

func newBackchannel(s *Server) *backchannel {
	return &backchannel{server: s, table: store.Table[notification]{Store: s.store, Name: "logout"},
		turns: make(chan struct{}, parallelLogouts), wake: make(chan struct{}, 1), busy: make(map[string]bool)}
}

// announce stores a notification for each client of a session that wants one.
func (b *backchannel) announce(ctx context.Context, ended *session, clients []*client) error {
	for _, c := range clients {
		if c.backchannelLogoutURI == "" {
			continue
		}
		id, expires := newID(), time.Now().Add(notificationKept)
		// First the index: an entry without a record is nothing, a record without an
		// entry would never be sent.
		if err := b.server.store.Link(ctx, notificationIndex, id, expires); err != nil {
			return unavailable(fmt.Errorf("announcing a logout: %w", err))
		}
		n := notification{ClientID: c.id, Subject: ended.Subject, Session: ended.ID}
		if err := b.table.Create(ctx, id, n, expires); err != nil {
			return unavailable(fmt.Errorf("announcing a logout: %w", err))
		}
	}
	return nil
}

// soon makes this instance look for what is due now.
func (b *backchannel) soon() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run sends what is due until ctx ends.
func (b *backchannel) run(ctx context.Context) {
	ticker := time.NewTicker(notificationEvery)
	defer ticker.Stop()
	for {
		b.sendDue(ctx)
		select {
		case <-ctx.Done():
			b.sending.Wait() // those under way have a few seconds at most
			return
		case <-ticker.C:
		case <-b.wake:
		}
	}
}

// sendDue begins to send what is due, to each client apart.
func (b *backchannel) sendDue(ctx context.Context) {
	due := make(map[string][]string) // ids by client
	for member, err := range b.server.store.Linked(ctx, notificationIndex, store.Member{}) {
		id := member.Name
		if err != nil {
			if ctx.Err() == nil {
				b.server.log.Warn("listing logouts to be sent", "error", err.Error())
			}
			return
		}
		// Without a record it is being made, or done; the entry goes by itself.
		n, _, err := b.table.Get(ctx, id)
		if err == nil && n.due() && len(due[n.ClientID]) < mostDue {
			due[n.ClientID] = append(due[n.ClientID], id)
		}
	}
	for clientID, ids := range due {
		b.tell(ctx, clientID, ids)
	}
}

func (n notification) due() bool { return time.Now().UnixMilli() >= n.NotUntil }

// tell begins to send one client what is due, unless that is under way; then what is
// new comes with the next look.
func (b *backchannel) tell(ctx context.Context, clientID string, ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy[clientID] {
		return
	}
	b.busy[clientID] = true
	waiting := make(chan string, len(ids))
	for _, id := range ids {
		waiting <- id
	}
	close(waiting)
	var mine sync.WaitGroup
	for range min(logoutsPerClient, len(ids)) {
		mine.Go(func() {
			for id := range waiting {
				b.sendOne(ctx, id)
			}
		})
	}
	b.sending.Go(func() {
		mine.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.busy, clientID)
	})
}

// sendOne makes an attempt at a notification that is due, if no other instance does.
func (b *backchannel) sendOne(ctx context.Context, id string) {
	select {
	case b.turns <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-b.turns }()
	n, record, err := b.table.Get(ctx, id)
	if err != nil || !n.due() {
		return
	}
	wait := notificationWaits[min(n.Tries, len(notificationWaits)-1)]
	n.Tries++
	n.NotUntil = time.Now().Add(wait + outboundTimeout).UnixMilli()
	if b.take(ctx, id, record, n) {
		b.send(ctx, id, n)
	}
}

// take reports whether this instance is the one that makes the next attempt.
func (b *backchannel) take(ctx context.Context, id string, record store.Record, n notification) bool {
	_, err := b.table.Swap(ctx, id, record.Version, n, record.Expires)
	return err == nil
}

// send makes one attempt.
func (b *backchannel) send(ctx context.Context, id string, n notification) {
	s := b.server
	attrs := []any{"event", "backchannel_logout", "client_id", n.ClientID, "sub", n.Subject, "sid", n.Session, "attempt", n.Tries}
	status, err := b.attempt(ctx, n)
	switch {
	case err == nil && status >= 200 && status < 300:
		s.log.Info("client told of a logout", append(attrs, "result", "told")...)
	case errors.Is(err, errNoClient):
		s.log.Info("client is gone and not told of a logout", append(attrs, "result", "client_gone")...)
	case status == http.StatusBadRequest: // §2.8: it refuses the token; it would refuse the next one too
		s.log.Error("client refuses its logout token", append(attrs, "result", "refused")...)
	case n.Tries > len(notificationWaits):
		s.log.Error("client was not told of a logout: given up", append(attrs, "result", "given_up", "status", status, "error", errorText(err))...)
	default:
		s.log.Warn("client was not told of a logout: it will be tried again", append(attrs, "result", "later", "status", status, "error", errorText(err))...)
		return
	}
	if err := errors.Join(b.table.Delete(ctx, id), s.store.Unlink(ctx, notificationIndex, id)); err != nil && ctx.Err() == nil {
		s.log.Warn("forgetting a logout that was sent", "error", err.Error())
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (b *backchannel) attempt(ctx context.Context, n notification) (int, error) {
	s := b.server
	c, err := s.clients.find(ctx, n.ClientID)
	if err != nil {
		return 0, err
	}
	if c.backchannelLogoutURI == "" {
		return 0, errNoClient // it does not want to be told any more
	}
	token, err := s.logoutToken(c, n)
	if err != nil {
		return 0, err
	}
	return s.outbound.post(ctx, c.backchannelLogoutURI, url.Values{"logout_token": {token}}.Encode())
}

// logoutClaims are Back-Channel Logout §2.4. There is no nonce.
type logoutClaims struct {
	Issuer   string              `json:"iss"`
	Subject  string              `json:"sub"`
	Audience string              `json:"aud"`
	IssuedAt int64               `json:"iat"`
	Expires  int64               `json:"exp"`
	ID       string              `json:"jti"`
	Session  string              `json:"sid"`
	Events   map[string]struct{} `json:"events"`
}

func (s *Server) logoutToken(c *client, n notification) (string, error) {
	now := time.Now()
	// Signed as the client's ID tokens are (Back-Channel Logout §2.4).
	return s.sign(s.idTokenAlgorithm(c), logoutTokenType, logoutClaims{
		Issuer: s.issuer, Subject: s.subjectFor(c, n.Subject), Audience: c.id, IssuedAt: now.Unix(), Expires: now.Add(logoutTokenLife).Unix(),
		ID: newID(), Session: n.Session, Events: map[string]struct{}{logoutEvent: {}},
	})
}
