package authserver_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/authserver/authservertest"
)

// What a person does on the pages, receivers are told of.
func TestPagesTellReceivers(t *testing.T) {
	var mu sync.Mutex
	var told []string
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(string(body)+"..", ".")[1])
		var claims struct {
			Events map[string]struct {
				By     string            `json:"initiating_entity"`
				Reason map[string]string `json:"reason_admin"`
			} `json:"events"`
		}
		json.Unmarshal(payload, &claims)
		mu.Lock()
		defer mu.Unlock()
		for event, is := range claims.Events {
			told = append(told, event[strings.LastIndexByte(event, '/')+1:]+" by "+is.By+": "+is.Reason["en"])
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(receiver.Close)
	s := pagesServer(t, func(c *authserver.Config) {
		c.OutboundNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.Receivers = []authserver.Receiver{{Name: "app", URL: receiver.URL, Audience: "app"}}
	})
	expect := func(want ...string) {
		t.Helper()
		var got []string
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			got = slices.Clone(told)
			mu.Unlock()
			if len(got) >= len(want) {
				break
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("told of %q, want %q", got, want)
		}
		mu.Lock()
		told = nil
		mu.Unlock()
	}
	v, other := newVisitor(t), newVisitor(t)
	v.signIn(v.get(s.Issuer+"/account"), authservertest.Username, authservertest.Password)
	other.signIn(other.get(s.Issuer+"/account"), authservertest.Username, authservertest.Password)
	v.submit(v.get(s.Issuer+"/account"), "change_password", "current_password", authservertest.Password, "new_password", "longenough", "repeat_password", "longenough")
	expect("credential-change by user: password_update", "session-revoked by user: password_changed")
	_, next, _ := enrolTOTP(t, v, s.Issuer)
	expect("credential-change by user: app_create")
	half := other.signIn(other.get(s.Issuer+"/account"), authservertest.Username, "longenough") // one factor changes no factors
	other.submit(half, `name="code"`, "code", next).expect(t, 200, "Hello, alice")
	other.submit(other.get(s.Issuer+"/account"), "remove_totp").expect(t, 200, "It is removed")
	expect("credential-change by user: app_delete")
	v.submit(v.get(s.Issuer+"/account"), "sign_out")
	expect("session-revoked by user: signed_out")
}
