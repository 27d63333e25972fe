package authserver

import (
	"errors"
	"net/url"
	"testing"
	"time"

	"authserver/internal/feed"
)

// A grant whose end is in the log is over, also where whoever ended it was killed
// before the record was gone: its access tokens are dead, and so is its refresh token.
func TestLoggedEndOfAGrant(t *testing.T) {
	s := fastServer(t, 0)
	made := bobsGrant(t, s)
	_, raw := issued(t, s, made, 0)
	refreshed(t, s, raw)
	s.feed.set.Add([]feed.Entry{feed.NewEntry(feed.Grant, made.GrantID, time.Hour, 0)}) // and the record is there
	c, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	_, err = refreshTokenGrant{s}.Authorize(t.Context(), tokenRequest{client: c, form: form{url.Values{"refresh_token": {raw}}}})
	var refused *Error
	if !errors.As(err, &refused) || refused.Code != "invalid_grant" {
		t.Errorf("refreshing a grant that the log ends: %v", err)
	}
	_, record, err := s.grants.Get(t.Context(), made.GrantID)
	if err != nil || record.Version != 2 {
		t.Errorf("the grant has moved, or was gone before: %+v, %v", record, err)
	}
}
