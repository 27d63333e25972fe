package verifier

import (
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/go-jose/go-jose/v4"
)

// minter signs tokens in a bubble.
type minter struct {
	private any
	kid     string
}

func (m minter) token(t *testing.T, id string, life time.Duration) string {
	t.Helper()
	now := time.Now()
	payload := fmt.Sprintf(`{"iss":"https://auth.example.com","aud":"https://api.example.com","sub":"a","client_id":"c","jti":%q,"iat":%d,"exp":%d,"roles":["r"]}`,
		id, now.Unix(), now.Add(life).Unix())
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: m.private}, (&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", m.kid))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	compact, _ := signed.CompactSerialize()
	return compact
}

// cached runs a test with a verifier whose issuer publishes the key of a minter.
func cached(t *testing.T, bytes int, test func(*testing.T, *Verifier, minter, *answers)) {
	synctest.Test(t, func(t *testing.T) {
		body, private := publishWith(t, "a")
		issuer := &answers{status: 200, body: body, maxAge: "max-age=600"}
		v, err := New(t.Context(), Config{Issuer: "https://auth.example.com", Audience: "https://api.example.com", CacheBytes: bytes,
			JWKSURI: "https://auth.example.com/keys", HTTPClient: &http.Client{Transport: issuer}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		test(t, v, minter{private, "a"}, issuer)
	})
}

// look verifies a token and reports whether it had been verified before.
func look(t *testing.T, v *Verifier, token string) (reason Reason, before bool) {
	t.Helper()
	v.config.Observe = func(o Observation) { reason, before = o.Reason, o.Cached }
	v.Verify(t.Context(), token)
	return reason, before
}

// A second look is a short one; it ends with the token, to the second.
func TestCacheEndsWithTheToken(t *testing.T) {
	cached(t, 1<<20, func(t *testing.T, v *Verifier, m minter, _ *answers) {
		token := m.token(t, "1", time.Minute)
		for n := range 3 {
			if reason, before := look(t, v, token); reason != "" || before != (n > 0) {
				t.Fatalf("look %d: %q, cached %v", n, reason, before)
			}
		}
		time.Sleep(time.Minute + 30*time.Second - time.Millisecond) // with the leeway
		if reason, before := look(t, v, token); reason != "" || !before {
			t.Errorf("just before its end: %q, cached %v", reason, before)
		}
		time.Sleep(time.Millisecond)
		if reason, _ := look(t, v, token); reason != Expired {
			t.Errorf("at its end: %q", reason)
		}
		if n := v.cache.length(); n != 0 {
			t.Errorf("%d tokens are still held", n)
		}
	})
}

// A key that the issuer no longer publishes ends all its tokens; one that stays in
// a new set ends none.
func TestCacheEndsWithTheKey(t *testing.T) {
	cached(t, 1<<20, func(t *testing.T, v *Verifier, m minter, issuer *answers) {
		token := m.token(t, "1", 30*time.Minute)
		look(t, v, token)
		first := issuer.body
		both := strings.Replace(first, `"keys":[`, `"keys":[`+strings.TrimSuffix(strings.TrimPrefix(publish(t, "b"), `{"keys":[`), `]}`)+",", 1)
		issuer.set(func(a *answers) { a.body = both })
		time.Sleep(601 * time.Second)
		synctest.Wait()
		if reason, before := look(t, v, token); issuer.count() != 2 || reason != "" || !before {
			t.Errorf("after another key came: %d fetches, %q, cached %v", issuer.count(), reason, before)
		}
		other := publish(t, "b")
		issuer.set(func(a *answers) { a.body = other })
		time.Sleep(601 * time.Second)
		synctest.Wait()
		if reason, _ := look(t, v, token); reason != UnknownKey {
			t.Errorf("after the key went: %q", reason)
		}
	})
}

// Another key under the same kid is another key.
func TestCacheEndsWithAReplacedKey(t *testing.T) {
	cached(t, 1<<20, func(t *testing.T, v *Verifier, m minter, issuer *answers) {
		token := m.token(t, "1", 30*time.Minute)
		look(t, v, token)
		other := publish(t, "a")
		issuer.set(func(a *answers) { a.body = other })
		time.Sleep(601 * time.Second)
		synctest.Wait()
		if reason, _ := look(t, v, token); reason != BadSignature {
			t.Errorf("under another key of the same kid: %q", reason)
		}
	})
}

// Keys that nobody has confirmed for a day verify nothing, seen before or not.
func TestCacheEndsWithTheKeySet(t *testing.T) {
	cached(t, 1<<20, func(t *testing.T, v *Verifier, m minter, issuer *answers) {
		token := m.token(t, "1", 48*time.Hour)
		look(t, v, token)
		issuer.set(func(a *answers) { a.status = 500 })
		time.Sleep(23 * time.Hour)
		if reason, before := look(t, v, token); reason != "" || !before {
			t.Errorf("after 23 hours: %q, cached %v", reason, before)
		}
		time.Sleep(2 * time.Hour)
		if reason, _ := look(t, v, token); reason != KeysUnavailable {
			t.Errorf("after 25 hours: %q", reason)
		}
	})
}

// FIELD 15: another spelling of a token that was seen is not that token, and what
// was not accepted is not remembered.
func TestCacheKnowsOneSpelling(t *testing.T) {
	cached(t, 1<<20, func(t *testing.T, v *Verifier, m minter, _ *answers) {
		token := m.token(t, "1", time.Minute)
		look(t, v, token)
		parts := strings.Split(token, ".")
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		for name, other := range map[string]string{
			"padding":  token + "==",
			"a space":  token + " ",
			"a line":   strings.Replace(token, ".", ".\n", 1),
			"standard": parts[0] + "." + parts[1] + "." + base64.StdEncoding.EncodeToString(signature),
			"cut":      token[:len(token)-1],
			"trailing": token + ".",
		} {
			if reason, before := look(t, v, other); reason != Malformed && reason != BadSignature || before {
				t.Errorf("%s: %q, cached %v", name, reason, before)
			}
		}
		if n := v.cache.length(); n != 1 {
			t.Errorf("%d tokens are held, want 1", n)
		}
	})
}

// Whatever comes, the cache stays within its bytes, and keeps what is asked for.
func TestCacheIsBounded(t *testing.T) {
	const bytes = 256 << 10
	cached(t, bytes, func(t *testing.T, v *Verifier, m minter, _ *answers) {
		busy := m.token(t, "busy", time.Hour)
		for n := range 600 {
			look(t, v, m.token(t, fmt.Sprint(n), time.Hour))
			if reason, before := look(t, v, busy); reason != "" || n > 0 && !before {
				t.Fatalf("the busy token was forgotten after %d others (%q)", n, reason)
			}
			if held := v.cache.bytes(); held > bytes {
				t.Fatalf("%d bytes are held", held)
			}
		}
		if n := v.cache.length(); n < 30 || n > 200 {
			t.Errorf("%d tokens are held in %d bytes", n, bytes)
		}
	})
}

// A token is a part of the request's headers, which are to go with the request: what is
// remembered is a copy, also when it is asked for again.
func TestCacheKeepsItsOwnText(t *testing.T) {
	cached(t, 1<<20, func(t *testing.T, v *Verifier, m minter, _ *answers) {
		token := m.token(t, "1", time.Minute)
		look(t, v, token)
		s := v.cache.shardOf(token)
		s.old, s.young = s.young, make(map[string]*entry) // as when it is full
		look(t, v, token)
		for held := range s.young {
			if unsafe.StringData(held) == unsafe.StringData(token) {
				t.Error("the caller's own text is kept")
			}
		}
		if len(s.young) != 1 {
			t.Errorf("%d tokens are held", len(s.young))
		}
	})
}

// The claims that a caller gets are his own.
func TestCacheSharesNothing(t *testing.T) {
	cached(t, 1<<20, func(t *testing.T, v *Verifier, m minter, _ *answers) {
		token := m.token(t, "1", time.Minute)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 50 {
					claims, err := v.Verify(t.Context(), token)
					if err != nil || claims.Subject != "a" || len(claims.Roles) != 1 {
						t.Errorf("%+v %v", claims, err)
						return
					}
					if claims.Roles[0] != "r" || claims.Audience[0] != "https://api.example.com" {
						t.Errorf("another caller's changes: %+v", claims)
					}
					claims.Subject, claims.Roles[0], claims.Roles = "mallory", "admin", append(claims.Roles, "admin")
				}
			})
		}
		all.Wait()
	})
}
