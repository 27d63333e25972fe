package authserver

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"authserver/store"
)

// Levels of authentication, as acr in tokens: what acr_values may ask for, each
// met by those after it.
const (
	acrPassword = "aal1" // one factor
	acrTwo      = "aal2" // two factors
	acrPhishing = "phr"  // a passkey: phishing-resistant (OpenID EAP ACR Values §2)
)

var acrLevels = []string{acrPassword, acrTwo, acrPhishing}

// session is a browser in which a user is signed in. Its record is session/<sid>;
// the browser's cookie holds the sid and a secret of which the record has the hash.
// The record's expiry is the earlier of idleness and the end of the session.
type session struct {
	ID         string   `json:"sid"` // in tokens; the same for as long as the same user stays signed in
	SecretHash string   `json:"secret_hash"`
	Subject    string   `json:"sub"`
	AuthTime   int64    `json:"auth_time"` // of the last authentication; seconds since 1970, like all times here
	AMR        []string `json:"amr"`       // RFC 8176
	ACR        string   `json:"acr"`
	Created    int64    `json:"created"`
	LastSeen   int64    `json:"last_seen"` // to a minute
	Ends       int64    `json:"ends"`      // whatever the user does
	Agent      string   `json:"agent,omitempty"`
	Told       []string `json:"told,omitempty"` // client_ids; see noteClient
}

const (
	seenEvery = time.Minute // LastSeen is written once in so long
	maxAgent  = 256         // bytes of a User-Agent that are kept
)

// cookie returns a cookie of ours. Its name begins with __Host- where that can be,
// so that no other host and no page without TLS can set it (ATTACKS BR-05).
func (s *Server) cookie(name, value string) *http.Cookie {
	return &http.Cookie{Name: s.cookieName(name), Value: value, Path: "/", HttpOnly: true, Secure: s.https, SameSite: http.SameSiteLaxMode}
}

func (s *Server) cookieName(name string) string {
	if s.https {
		return "__Host-" + name
	}
	// Of a loopback issuer: __Host- needs Secure. The name is long because cookies of
	// all ports of a host are one jar, and many frameworks call theirs "session".
	return "authserver-" + name
}

// cookieValue returns the value of one of our cookies, and "" when there is none or
// more than one.
func (s *Server) cookieValue(r *http.Request, name string) string {
	if cookies := r.CookiesNamed(s.cookieName(name)); len(cookies) == 1 {
		return cookies[0].Value
	}
	return ""
}

// newSecret returns 256 random bits, in 43 characters that need no encoding anywhere
// (RFC 3986 §2.3).
func newSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hashOf(secret string) string {
	hash := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(hash[:])
}

// sessionOf returns the session of the browser that sent r, and nil when nobody
// who may have tokens is signed in there.
func (s *Server) sessionOf(r *http.Request) (*session, error) {
	current, record, err := s.storedSession(r)
	if err != nil || current == nil {
		return nil, err
	}
	u, err := s.users.bySubject(r.Context(), current.Subject)
	switch {
	case errors.Is(err, errNoUser), err == nil && u.ended(current.AuthTime):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if now := time.Now(); now.Sub(time.Unix(current.LastSeen, 0)) >= seenEvery {
		current.LastSeen = now.Unix()
		// If somebody else was first, the session was seen just as well; and it is
		// no worse a session when the store does not take the time now.
		_, err := s.sessions.Swap(r.Context(), current.ID, record.Version, *current, s.sessionExpiry(current))
		if err != nil && !errors.Is(err, store.ErrConflict) {
			s.log.Warn("writing when a session was last seen", "sid", current.ID, "error", err.Error())
		}
	}
	return current, nil
}

// storedSession returns the session that the cookie of r opens, whoever it is of.
func (s *Server) storedSession(r *http.Request) (*session, store.Record, error) {
	id, secret, ok := strings.Cut(s.cookieValue(r, "session"), ".")
	if !ok || !isBase64URL(id, 32) || !isBase64URL(secret, 43) {
		return nil, store.Record{}, nil
	}
	records, err := s.store.Get(r.Context(), s.sessions.Key(id), endedSessionKey(id))
	if err != nil {
		return nil, store.Record{}, unavailable(fmt.Errorf("looking up a session: %w", err))
	}
	if !records[0].Exists() || records[1].Exists() {
		return nil, store.Record{}, nil
	}
	current, err := s.sessions.Decode(records[0])
	if err != nil {
		return nil, store.Record{}, err
	}
	if subtle.ConstantTimeCompare([]byte(hashOf(secret)), []byte(current.SecretHash)) != 1 {
		return nil, store.Record{}, nil
	}
	return &current, records[0], nil
}

func (s *Server) sessionExpiry(one *session) time.Time {
	return earlier(time.Unix(one.LastSeen, 0).Add(s.sessionTimes.Idle), time.Unix(one.Ends, 0))
}

// startSession signs u in, in the browser that sent r: at the end of a sign-in and
// of each step-up. The secret in the cookie is always a new one, and with the one
// before nobody is signed in any more (ATTACKS BR-04). A user who was signed in
// keeps his session's id; another user's session ends.
//
// Whether the proof still holds is asked when the session is there to be found by
// whoever ends the user's sessions. The browser gets the secret only then.
func (s *Server) startSession(w http.ResponseWriter, r *http.Request, p proof) (*session, error) {
	u := p.user
	before, _, err := s.storedSession(r)
	if err != nil {
		return nil, err
	}
	now, secret := time.Now(), newSecret()
	started := session{
		ID: newID(), SecretHash: hashOf(secret), Subject: u.subject, AuthTime: u.authTime(now), AMR: p.amr, ACR: p.acr,
		Created: now.Unix(), LastSeen: now.Unix(), Ends: now.Add(s.sessionTimes.Max).Unix(), Agent: r.UserAgent(),
	}
	if len(started.Agent) > maxAgent {
		started.Agent = strings.ToValidUTF8(started.Agent[:maxAgent], "")
	}
	if before != nil && before.Subject == u.subject {
		started.ID, started.Created = before.ID, before.Created
	}
	ctx := r.Context()
	_, _, err = s.sessions.Update(ctx, started.ID, s.sessionExpiry(&started), func(stored *session) error {
		started.Told = stored.Told
		*stored = started
		return nil
	})
	if err == nil {
		err = s.store.Link(ctx, sessionsOf(u.subject), started.ID, time.Unix(started.Ends, 0))
	}
	if err != nil {
		return nil, unavailable(fmt.Errorf("starting a session: %w", err))
	}
	if err := s.provesStill(ctx, p); err != nil {
		return nil, errors.Join(err, s.logOut(ctx, &started, reasonMeanwhile))
	}
	if before != nil && before.ID != started.ID {
		if err := s.logOut(ctx, before, reasonOtherUser); err != nil { // its clients are told
			return nil, err
		}
	}
	http.SetCookie(w, s.cookie("session", started.ID+"."+secret))
	s.log.Info("session started", "event", "session", "sub", u.subject, "sid", started.ID, "amr", p.amr, "acr", p.acr)
	return &started, nil
}

// sessionsOf names the index of the sids of a user's sessions.
func sessionsOf(subject string) string { return "sessions/sub/" + subject }
