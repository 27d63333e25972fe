package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"authserver/internal/intake"
	"authserver/store"
)

// unwritable is a store whose log of revocations cannot be written for a while.
type unwritable struct {
	store.Store
	now bool
}

func (s *unwritable) Append(ctx context.Context, log string, event []byte, keep time.Duration) (store.Position, error) {
	if s.now && log == revocationLog {
		return 0, errors.New("no space left")
	}
	return s.Store.Append(ctx, log, event, keep)
}

// ATTACKS I1, for each of the ways in which something ends: while the log cannot be
// written, nobody is told that it has ended. Then the same again ends it, and when it is
// acknowledged the log says so, for longer than any token that it ends lives.
func TestEverySourceIsLoggedFirst(t *testing.T) {
	hash, err := HashPassword("another password")
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		*browser
		session             *session
		code                string
		first, latest       tokenAnswer // what the code was exchanged for, and the second refresh after that
		grantID, keyID, jti string
	}
	admin := func(_ any, err error) error { return err }
	machine := func(a tokenAnswer) error { // a refusal for a theft or a replay acknowledges, too
		if a.status >= 500 {
			return fmt.Errorf("%d %v", a.status, a.body)
		}
		return nil
	}
	for name, source := range map[string]struct {
		act   func(h holder) error
		ended func(h holder, r revocation) bool
	}{
		"/revoke, access token": {
			func(h holder) error {
				return machine(h.ask("POST", "/revoke", "web", url.Values{"token": {h.latest.text("access_token")}}))
			},
			func(h holder, r revocation) bool { return r.Token == h.jti && r.Reason == reasonByClient },
		},
		"/revoke, refresh token": {
			func(h holder) error {
				return machine(h.ask("POST", "/revoke", "web", url.Values{"token": {h.latest.text("refresh_token")}}))
			},
			func(h holder, r revocation) bool { return r.Grant == h.grantID && r.Reason == reasonByClient },
		},
		"refresh theft": {
			func(h holder) error { return machine(h.refresh(h.first)) },
			func(h holder, r revocation) bool { return r.Grant == h.grantID && r.Reason == reasonTheft },
		},
		"code replay": {
			func(h holder) error { return machine(h.exchange("web", h.code)) },
			func(h holder, r revocation) bool { return r.Grant == h.grantID && r.Reason == reasonReplay },
		},
		"logout": {
			func(h holder) error { return h.server.logOut(h.t.Context(), h.session, "test") },
			func(h holder, r revocation) bool { return r.Session == h.session.ID },
		},
		"user disabled": {
			func(h holder) error {
				return admin(h.server.adminUserDisable(h.t.Context(), UserRef{Subject: "alice-1"}))
			},
			func(h holder, r revocation) bool { return r.Subject == "alice-1" && r.Before > 0 },
		},
		"password changed": {
			func(h holder) error {
				return admin(h.server.adminUserPassword(h.t.Context(), UserPassword{UserRef: UserRef{Subject: "alice-1"}, PasswordHash: hash}))
			},
			func(h holder, r revocation) bool { return r.Subject == "alice-1" && r.Before > 0 },
		},
		"client removed": {
			func(h holder) error {
				return admin(h.server.adminClientRemove(h.t.Context(), ClientRef{ClientID: "shop"}))
			},
			func(h holder, r revocation) bool { return r.Client == "shop" && r.Before > 0 },
		},
		"key revoke": {
			func(h holder) error {
				operator := context.WithValue(h.t.Context(), peerKey{}, namedPeer{adminPeer: adminPeer{UID: 1000}})
				return admin(h.server.adminKeyRevoke(operator, KeyRef{KeyID: h.keyID, Reason: "stolen"}))
			},
			func(h holder, r revocation) bool { return r.Key == h.keyID },
		},
		"grant revoke": {
			func(h holder) error {
				return admin(h.server.adminGrantRevoke(h.t.Context(), GrantRevoke{GrantID: h.grantID}))
			},
			func(h holder, r revocation) bool { return r.Grant == h.grantID },
		},
		"grant revoke, session": {
			func(h holder) error {
				return admin(h.server.adminGrantRevoke(h.t.Context(), GrantRevoke{SessionID: h.session.ID}))
			},
			func(h holder, r revocation) bool { return r.Session == h.session.ID },
		},
		"grant revoke, user": {
			func(h holder) error {
				return admin(h.server.adminGrantRevoke(h.t.Context(), GrantRevoke{UserRef: UserRef{Subject: "alice-1"}}))
			},
			func(h holder, r revocation) bool { return r.Subject == "alice-1" && r.Before > 0 },
		},
		"grant revoke, client": {
			func(h holder) error {
				return admin(h.server.adminGrantRevoke(h.t.Context(), GrantRevoke{ClientID: "web"}))
			},
			func(h holder, r revocation) bool { return r.Client == "web" && r.Before > 0 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := browserServer(t, nil)
			log := &unwritable{Store: base.store}
			s := browserServerWith(t, base, func(c *Config) { c.Store = log })
			if err := PutClient(t.Context(), s.store, Client{ClientID: "shop", GrantTypes: []string{"client_credentials"}, Scope: "orders:read"}, testSecret, false); err != nil {
				t.Fatal(err)
			}
			h := holder{browser: newBrowser(t, s)}
			h.session = h.signIn("alice-1")
			h.code = h.browser.code()
			h.first = h.exchange("web", h.code)
			h.latest = h.refresh(h.refresh(h.first))
			raw := h.latest.text("access_token")
			claims, _ := h.verified(raw, "ES256")
			parsed, err := intake.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			h.grantID, h.jti, h.keyID = claims["grant_id"].(string), claims["jti"].(string), parsed.KeyID
			expires := int64(claims["exp"].(float64))

			log.now = true
			if err := source.act(h); err == nil {
				t.Error("acknowledged, and the log could not be written")
			}
			log.now = false
			if err := source.act(h); err != nil {
				t.Fatalf("once more: %v", err)
			}
			events, err := s.store.Tail(t.Context(), revocationLog, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, event := range events {
				var r revocation
				if err := json.Unmarshal(event.Value, &r); err != nil {
					t.Fatal(err)
				}
				if source.ended(h, r) && r.Until > expires {
					return
				}
			}
			t.Errorf("acknowledged, and not in the log, which has %d events", len(events))
		})
	}
}

func (b *browser) refresh(of tokenAnswer) tokenAnswer {
	return b.token("web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {of.text("refresh_token")}})
}
