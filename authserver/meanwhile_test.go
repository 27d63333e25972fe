package authserver_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/store"
	"authserver/store/boltstore"
)

// meddling is a store in which something happens just before a grant is stored: when it
// was decided, and whoever ends its user cannot find it yet.
type meddling struct {
	store.Store
	once   sync.Once
	meddle func()
}

func (s *meddling) Create(ctx context.Context, key string, value []byte, expires time.Time) error {
	if strings.HasPrefix(key, "grant/") && s.meddle != nil {
		s.once.Do(s.meddle)
	}
	return s.Store.Create(ctx, key, value, expires)
}

// ATTACKS AZ-31: a grant that is made while its user is disabled, or while all of
// its user or client is ended, is not made.
func TestGrantWhileItsUserEnds(t *testing.T) {
	for _, level := range []string{"disabled", "subject", "client"} {
		t.Run(level, func(t *testing.T) {
			opened, err := boltstore.Open(t.TempDir() + "/store.db")
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			meddler := &meddling{Store: opened}
			s, server := instances(t, func(c *authserver.Config) { c.Store = meddler })
			hash, err := authserver.HashPassword("builder")
			if err != nil {
				t.Fatal(err)
			}
			if err := authserver.PutUser(t.Context(), opened, "sub-bob", "bob", hash, false); err != nil {
				t.Fatal(err)
			}
			meddler.meddle = func() {
				var err error
				switch level {
				case "disabled":
					err = authserver.DisableUser(t.Context(), server, "sub-bob")
				case "subject":
					err = authserver.Kills["subject"](server, t.Context(), "sub-bob", "test")
				case "client":
					err = authserver.Kills["client"](server, t.Context(), authservertest.WebID, "test")
				}
				if err != nil {
					t.Error(err)
				}
			}
			a := post(t, s.Issuer+"/token", web, form("grant_type", "password", "username", "bob", "password", "builder"))
			refused(t, level, a, http.StatusBadRequest, "invalid_grant")
			grants, id := authserver.Grants(opened), authserver.NewGrantID("sub-bob")
			for grant, err := range opened.Members(t.Context(), grants.Family(id[:grants.Home])) {
				t.Errorf("a grant was left: %+v %v", grant, err)
			}
		})
	}
}
