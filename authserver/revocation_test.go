package authserver

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/timetest"
	"authserver/keys"
	"authserver/store"
)

// What other versions wrote ends at least what it could mean.
func TestEventsOfOtherVersions(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	token := accesstoken.Claims{Issuer: s.issuer, ID: "j", GrantID: "g", SessionID: "s", Subject: "alice", ClientID: "web", IssuedAt: 1000}
	for _, c := range []struct {
		event      string
		want       feed.Level
		understood bool
	}{
		{`{"v":1,"jti":"j","reason":"r","at":1000,"until":1100}`, feed.Token, true},
		{`{"jti":"j","reason":"r","at":1000,"until":1100}`, feed.Token, true}, // before versions were written
		{`{"v":1,"grant_id":"g","at":1000,"until":1100}`, feed.Grant, true},
		{`{"v":1,"sid":"s","at":1000,"until":1100}`, feed.Session, true},
		{`{"v":1,"sub":"alice","before":1000,"at":1000,"until":1100}`, feed.Subject, true},
		{`{"v":1,"sub":"alice","before":999,"at":1000,"until":1100}`, "", true},
		{`{"v":1,"sub":"alice","at":1000,"until":1100}`, feed.Subject, true},
		{`{"v":1,"client_id":"web","before":1000,"at":1000,"until":1100}`, feed.Client, true},
		{`{"v":1,"kid":"k","at":1000,"until":1100}`, feed.KeyID, true},
		{`{"v":1,"sub":"bob","at":1000,"until":1100}`, "", true},
		{`{"v":1,"fence":"f","at":1000,"until":1100}`, "", true},
		{`{"v":1,"sub":"alice","client_id":"web","at":1000,"until":1100}`, feed.Subject, true},
		// Fail closed: all that was issued until then.
		{`{"v":1,"tenant":"t","at":1000,"until":1100}`, feed.Issuer, false},
		{`{"v":1,"tenant":"t","at":999,"until":1100}`, "", false},
		{`{"v":2,"sub":"bob","at":1000,"until":1100}`, feed.Issuer, false},
		{`{"v":1,"sub":7,"at":1000,"until":1100}`, feed.Issuer, false},
		{`{`, feed.Issuer, false},
		{``, feed.Issuer, false},
		{`null`, feed.Issuer, false},
	} {
		_, entries, understood := s.entries([]byte(c.event))
		set := feed.NewSet()
		set.Add(entries)
		if level, _ := set.Revoked(feed.SubjectsOf("k", &token)); level != c.want || understood != c.understood {
			t.Errorf("%s ends the token at %q, understood %v; want %q, %v", c.event, level, understood, c.want, c.understood)
		}
		for _, entry := range entries {
			if entry.TTL < 60 || entry.TTL > 4000 {
				t.Errorf("%s matters for %d s", c.event, entry.TTL)
			}
		}
	}
}

// Every revocation is in the log when it is acknowledged, and matters for longer
// than any token that it ends, also one of a longer lifetime than is configured now.
func TestPublish(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	for _, r := range []revocation{{Grant: "g"}, {Session: "s"}, {Subject: "alice"}, {Client: "web"}, {Key: "k"}} {
		r.Reason = "test"
		if err := s.publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	events, err := s.store.Tail(t.Context(), revocationLog, 0, 0)
	if err != nil || len(events) != 5 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for _, event := range events {
		var r revocation
		if err := json.Unmarshal(event.Value, &r); err != nil {
			t.Fatal(err)
		}
		lifetime := int64(s.keys.LongestToken().Seconds())
		if r.Version != 1 || r.At == 0 || r.Until < r.At+lifetime+120 || (r.Before == 0) != (r.Subject == "" && r.Client == "") {
			t.Errorf("the event is %s", event.Value)
		}
	}
	if s.tokens.Access >= s.keys.LongestToken() {
		t.Fatalf("this test wants keys that have signed longer tokens than %s", s.tokens.Access)
	}
}

// Who was killed between the two steps of ending a grant leaves it in the log and in
// the store. It has ended all the same, soon: it cannot be refreshed for tokens that
// nobody accepts.
func TestHalfEndedGrant(t *testing.T) {
	s := insideServer(t, nil, keys.MasterKey{})
	ctx := t.Context()
	if err := s.grants.Create(ctx, "half", Grant{ClientID: "web", Subject: "web"}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.publish(ctx, revocation{Grant: "half", Reason: reasonTheft}); err != nil {
		t.Fatal(err)
	}
	runUntilCleanup(t, s.Run)
	timetest.Await(t, "the grant is gone", func() bool {
		_, _, err := s.grants.Get(ctx, "half")
		return errors.Is(err, store.ErrNotFound)
	})
}
