package authserver

import (
	"context"
	"net/http"
	"time"

	"authserver/store"
)

// endOwnApp takes all access from a client: what was allowed, and every grant.
func (s *Server) endOwnApp(v accountVisit) (Notice, error) {
	ctx, clientID := v.r.Context(), v.form.get("client_id")
	if !isClientID(clientID) {
		return "", &pageError{kind: ErrorRequest, status: http.StatusBadRequest, detail: "the form names no client"}
	}
	if err := s.forgetConsent(ctx, v.user.subject, clientID); err != nil {
		return "", err
	}
	if err := s.markRemoved(ctx, v.user.subject, clientID); err != nil {
		return "", err
	}
	return NoticeAppEnded, s.eachGrant(ctx, v.user.subject, func(id string, grant Grant, _ store.Record) error {
		if grant.ClientID != clientID {
			return nil
		}
		return unavailableUnless(s.endGrant(ctx, id, reasonAppRemoved), "ending a grant")
	})
}

// A code that is out is no grant yet that could be ended. So a mark stays for as long
// as codes live, and what was given before it becomes no grant. Whoever makes the
// grant reads it with all else, when the grant can be found: see createGrant.

// removalMargin is by how much the clocks of instances may differ here.
const removalMargin = time.Second

func (s *Server) removedApps() store.Table[int64] {
	return store.Table[int64]{Store: s.store, Name: "removed"}
}

// removedApp is the id of the mark: until when, in milliseconds since 1970, what a
// user gave to a client is void.
func removedApp(subject, clientID string) string {
	return hashOf("removed\x00" + subject + "\x00" + clientID)
}

func (s *Server) markRemoved(ctx context.Context, subject, clientID string) error {
	now := time.Now()
	expires := now.Add(s.tokens.Code + markKept)
	_, _, err := s.removedApps().Update(ctx, removedApp(subject, clientID), expires, func(void *int64) error {
		*void = max(*void, now.Add(removalMargin).UnixMilli())
		return nil
	})
	return unavailableUnless(err, "removing an app")
}

// removedSince reports whether the app was removed after something was given.
func (s *Server) removedSince(mark store.Record, given time.Time) (bool, error) {
	if !mark.Exists() {
		return false, nil
	}
	void, err := s.removedApps().Decode(mark)
	return given.UnixMilli() <= void, err
}
