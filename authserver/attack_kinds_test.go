package authserver

import (
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
	"authserver/keys"
	"authserver/verifier"
)

// ATTACKS JW-09, JW-08, RT-14, RT-15, CA-23: each kind of token that the server, or a
// client, makes, presented at each place that takes tokens, is taken where its kind is
// meant and nowhere else. So is what a place takes, signed anew as each other kind: what
// tells kinds apart is typ, whatever the claims are.
func TestAttackJW09(t *testing.T) {
	partner, client := newPartner(t)
	s := browserServer(t, func(c *Config) {
		c.Clients = append(c.Clients, client)
		c.Clients[0].UserInfoSignedResponseAlg, c.Clients[0].IDTokenSignedResponseAlg = "ES256", "ES256"
	})
	b := signedIn(t, s)
	must := func(token string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	code := b.code()
	exchanged := b.exchange("web", b.code())
	access := exchanged.text("access_token")
	userinfo := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/userinfo", nil)
	r.Header.Set("Authorization", "Bearer "+access)
	s.ServeHTTP(userinfo, r)
	web, err := s.clients.find(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	frame, err := s.feed.sign(feed.Frame{Cursor: "0", Nonce: "n"})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{
		accesstoken.Type: access, refreshTokenType: exchanged.text("refresh_token"), idTokenType: exchanged.text("id_token"),
		userInfoType:           userinfo.Body.String(),
		logoutTokenType:        must(s.logoutToken(web, notification{ClientID: "web", Subject: "alice-1", Session: b.session().ID})),
		securityEventTokenType: must(s.securityEventToken(securityEvent{Type: "session-revoked", ID: newID(), Subject: "alice-1", At: time.Now().Unix()}, &Receiver{Name: "r", Audience: "https://api.example.com"})),
		statusListType:         must(s.sign("ES256", statusListType, statusListClaims{Subject: testIssuer + "/statuses/1", IssuedAt: time.Now().Unix(), Expires: time.Now().Add(time.Minute).Unix()})),
		feed.FrameType:         strings.TrimSpace(string(frame[strings.Index(string(frame), "data: ")+6:])),
		feed.SnapshotType:      must(s.signForVerifiers(feed.SnapshotType, []byte(`{"iss":"`+testIssuer+`"}`))),
		feed.ReceiptType:       must(s.signForVerifiers(feed.ReceiptType, []byte(`{"iss":"`+testIssuer+`"}`))),
		assertionTypeHeader:    signedBy(t, partner.private, map[string]any{"alg": "ES256", "kid": partnerKID, "typ": assertionTypeHeader}, partner.claims(nil)),
	}
	for kind, token := range kinds {
		parsed, err := intake.Parse(token)
		if err != nil || parsed.Type != kind {
			t.Fatalf("%s: %q, %v", kind, token, err)
		}
	}
	kinds["code"] = code

	published := httptest.NewServer(s)
	t.Cleanup(published.Close)
	v, err := verifier.New(t.Context(), verifier.Config{
		Issuer: testIssuer, Audience: "https://api.example.com", JWKSURI: published.URL + "/.well-known/jwks.json",
	})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(token *intake.Token) error {
		algorithm, key, _ := s.keys.AccessKey(token.KeyID)
		return token.Verify(intake.Key{ID: token.KeyID, Algorithm: algorithm, Public: key})
	}
	places := []struct {
		name   string
		kind   []string // what is taken
		accept func(token string) bool
	}{
		{"a resource server", []string{accesstoken.Type}, func(token string) bool { _, err := v.Verify(t.Context(), token); return err == nil }},
		{"/userinfo", []string{accesstoken.Type}, func(token string) bool {
			return b.ask("GET", "/userinfo", "Bearer "+token, nil).status == 200
		}},
		{"/introspect", []string{accesstoken.Type, refreshTokenType}, func(token string) bool { return b.active("web", token) }},
		{"/introspect by a token", nil, func(token string) bool {
			return b.ask("POST", "/introspect", "Bearer "+token, url.Values{"token": {access}}).status == 200
		}},
		{"id_token_hint", []string{idTokenType}, func(token string) bool {
			return b.send("GET", authorizeURL("prompt", "none", "id_token_hint", token), nil).query.Get("code") != ""
		}},
		{"id_token_hint of a logout", []string{idTokenType}, func(token string) bool {
			_, _, err := s.readLogoutRequest(t.Context(), form{url.Values{"id_token_hint": {token}}})
			return err == nil
		}},
		{"client_assertion", []string{assertionTypeHeader}, func(token string) bool { return b.present(token).status == 200 }},
		{"the feed", []string{feed.FrameType}, func(token string) bool {
			follower := feed.NewFollower(testIssuer)
			follower.Connect("n", time.Now())
			_, err := follower.Apply(token, time.Now(), verify)
			return err == nil
		}},
		{"code", []string{"code"}, func(token string) bool { return b.exchange("web", token).status == 200 }},
		{"refresh_token", []string{refreshTokenType}, func(token string) bool { return b.renew(token).status == 200 }},
	}
	for _, place := range places {
		for kind, token := range kinds {
			if place.accept(token) != slices.Contains(place.kind, kind) {
				t.Errorf("%s, presented as %s: taken is %t", kind, place.name, !slices.Contains(place.kind, kind))
			}
		}
		for _, kind := range place.kind {
			parsed, err := intake.Parse(kinds[kind])
			if err != nil || kind == assertionTypeHeader || kind == refreshTokenType { // CA-22; used up
				continue
			}
			ring, _, _ := s.keys.AccessKey(parsed.KeyID)
			for other := range kinds {
				anew := must(s.keys.Sign(ring, other, parsed.Payload))
				if place.accept(anew) != (other == kind) {
					t.Errorf("the claims of %s with typ %s, presented as %s: taken is %t", kind, other, place.name, other != kind)
				}
			}
		}
	}
	// The claims of a refresh token, by the key of refresh tokens and by those of others.
	next := b.renew(kinds[refreshTokenType]).text("refresh_token") // within the retry window
	parsed, err := intake.Parse(next)
	if err != nil {
		t.Fatal(err)
	}
	for other := range kinds {
		for _, ring := range []string{"ES256", keys.RefreshRing} {
			if other != refreshTokenType || ring != keys.RefreshRing {
				if b.renew(must(s.keys.Sign(ring, other, parsed.Payload))).status == 200 {
					t.Errorf("the claims of a refresh token with typ %s by a key of %s refresh", other, ring)
				}
			}
		}
	}
	if a := b.renew(next); a.status != 200 {
		t.Errorf("the grant ended: %v", a.body)
	}
	// Whoever presents the wrong kind for revocation ends nothing with it.
	after := b.exchange("web", b.code())
	for kind, token := range kinds {
		if kind != accesstoken.Type && kind != refreshTokenType {
			b.ask("POST", "/revoke", "web", url.Values{"token": {token}})
		}
	}
	if !b.active("web", after.text("access_token")) || !b.active("web", access) {
		t.Error("a token died of others")
	}
	var claims map[string]any
	if json.Unmarshal(parsed.Payload, &claims); claims["gen"] == nil {
		t.Errorf("a refresh token without generation: %v", claims)
	}
}
