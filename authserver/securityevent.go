package authserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"authserver/store"
)

// Security events (RFC 8417) say what has happened to a session or to what somebody
// signs in with, in the words of OpenID CAEP 1.0. Receivers get them by push; see
// outbox.

// The types of events, by the last part of their URI.
const (
	sessionRevoked   = "session-revoked"   // CAEP §3.1
	credentialChange = "credential-change" // CAEP §3.3
	eventTypePrefix  = "https://schemas.openid.net/secevent/caep/event-type/"
)

var eventTypes = []string{sessionRevoked, credentialChange}

// securityEventLog is the log to which each event is appended before what it tells
// of is acknowledged. It is not that of the revocations: an event there that an older
// server does not know ends every token.
const securityEventLog = "security-events"

// securityEvent is an event in the log. Of no receiver in particular: the token is
// made when it is sent.
type securityEvent struct {
	Version int    `json:"v"`
	ID      string `json:"id"`
	Type    string `json:"type"`
	Subject string `json:"sub,omitempty"`
	Session string `json:"sid,omitempty"`
	At      int64  `json:"at"` // seconds since 1970
	By      string `json:"by"` // initiating_entity
	Reason  string `json:"reason"`

	credentialEvent
}

const securityEventVersion = 1

// credentialEvent is what only a credential-change has (CAEP §3.3.1).
type credentialEvent struct {
	Credential string `json:"credential_type,omitempty"`
	Change     string `json:"change_type,omitempty"`
	AAGUID     string `json:"fido2_aaguid,omitempty"`
}

// tell appends an event to the log, if any receiver wants to know.
func (s *Server) tell(ctx context.Context, e securityEvent) error {
	if !s.outbox.wants(e.Type) {
		return nil
	}
	e.Version, e.ID, e.At, e.By = securityEventVersion, newID(), time.Now().Unix(), "user"
	if _, err := adminCaller(ctx); err == nil {
		e.By = "admin"
	}
	encoded, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding a security event: %w", err)
	}
	if _, err := s.store.Append(ctx, securityEventLog, encoded, securityEventsKept); err != nil {
		return unavailable(fmt.Errorf("logging a security event: %w", err))
	}
	return nil
}

// readSecurityEvent reads an event of the log.
func readSecurityEvent(logged store.Event) (securityEvent, error) {
	var e securityEvent
	if err := json.Unmarshal(logged.Value, &e); err != nil {
		return e, fmt.Errorf("reading a security event: %w", err)
	}
	if e.Version > securityEventVersion || !slices.Contains(eventTypes, e.Type) || e.ID == "" || e.Subject == "" {
		return e, fmt.Errorf("a security event %q of version %d is not understood", e.Type, e.Version)
	}
	return e, nil
}

// securityEventTokenType is the typ that no other token has (RFC 8417 §2.3).
const securityEventTokenType = "secevent+jwt"

// securityEventClaims are those of a security event token. There is no exp, and no sub,
// so that nobody takes it for an access or ID token (RFC 8417 §4.1, §4.2).
type securityEventClaims struct {
	Issuer      string                  `json:"iss"`
	IssuedAt    int64                   `json:"iat"`
	ID          string                  `json:"jti"`
	Audience    string                  `json:"aud"`
	Transaction string                  `json:"txn"` // the same at all receivers
	Subject     map[string]any          `json:"sub_id"`
	Events      map[string]eventPayload `json:"events"` // one
}

// eventPayload is what CAEP §2 and §3 say of an event.
type eventPayload struct {
	At     int64             `json:"event_timestamp"`
	By     string            `json:"initiating_entity"`
	Reason map[string]string `json:"reason_admin,omitempty"`
	credentialEvent
}

// securityEventToken makes the token of an event for a receiver (RFC 8417 §2.2). However
// often it is sent, its jti is the same, so that a receiver knows it again.
func (s *Server) securityEventToken(e securityEvent, r *Receiver) (string, error) {
	digest := sha256.Sum256([]byte(e.ID + "\x00" + r.Name))
	payload := eventPayload{At: e.At, By: e.By, credentialEvent: e.credentialEvent}
	if e.Reason != "" {
		payload.Reason = map[string]string{"en": e.Reason}
	}
	return s.sign(s.idTokenAlgorithm(&client{}), securityEventTokenType, securityEventClaims{
		Issuer: s.issuer, IssuedAt: time.Now().Unix(), ID: base64.RawURLEncoding.EncodeToString(digest[:16]), Audience: r.Audience,
		Transaction: e.ID, Subject: s.subjectID(e), Events: map[string]eventPayload{eventTypePrefix + e.Type: payload},
	})
}

// subjectID is the sub_id (RFC 9493): a user, all of whose sessions are meant, or one
// session of his, by the sid of its ID tokens.
func (s *Server) subjectID(e securityEvent) map[string]any {
	user := map[string]any{"format": "iss_sub", "iss": s.issuer, "sub": e.Subject} // RFC 9493 §3.2.3
	if e.Session == "" {
		return user
	}
	session := map[string]any{"format": "opaque", "id": e.Session}               // RFC 9493 §3.2.4
	return map[string]any{"format": "complex", "session": session, "user": user} // SSF 1.0, Complex Subjects
}
