package authserver_test

import (
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"authserver/authserver"
	"authserver/authserver/authservertest"
	"authserver/internal/browsertest"
)

var loopbackOnly = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// A passkey is made on the account page, signs in alone, and is the second step
// after a password. Chromium's virtual authenticator holds it.
func TestPasskeys(t *testing.T) {
	log := &lockedBuffer{}
	s := newSite(t, func(c *authserver.Config) { c.Logger = slog.New(slog.NewJSONHandler(log, nil)) })
	s.AddAuthenticator(true)
	s.addPasskey("My key")
	s.expect(t, "Your recovery codes")
	codes := browsertest.Evaluate[[]string](s.Browser, `[...document.querySelectorAll(".codes code")].map(e => e.textContent)`)
	if len(codes) != 10 {
		t.Fatal(codes)
	}
	s.Click("a.button", "#devices")
	s.expect(t, "My key", "10 codes are left.")

	// As the second step.
	s.Forget()
	s.Open(s.authorize("frame"))
	s.signIn(authservertest.Password, "#code")
	s.expect(t, "One more step", "alice")
	s.Click("form.passkey button", "#arrived")
	s.expect(t, "code=true")

	// A recovery code in its place, once.
	s.Forget()
	s.Open(s.authorize("frame"))
	s.signIn(authservertest.Password, "#code")
	s.Type("#code", " "+codes[3]+" ")
	s.Click("form:not(.passkey) button", "#arrived")
	s.Forget()
	s.Open(s.authorize("frame"))
	s.signIn(authservertest.Password, "#code")
	s.Type("#code", codes[3])
	s.Click("form:not(.passkey) button", "#notice")
	s.expect(t, "That code is wrong.")

	// Alone, without a name or password; and it is phishing-resistant.
	s.Forget()
	s.Open(s.authorize("frame", "acr_values", "phr"))
	s.Click("form.passkey button", "#arrived")
	s.expect(t, "code=true")
	s.Open(s.authorize("frame", "acr_values", "phr", "prompt", "none"))
	s.Wait("#arrived")
	s.expect(t, "code=true")

	s.Open(s.Issuer + "/account")
	s.Click("[aria-label='Remove the passkey My key']", "[role=status]")
	s.Forget()
	s.Open(s.authorize("frame"))
	s.Click("form.passkey button", "#notice")
	s.expect(t, "The passkey was not accepted.")
	s.Quiet(t)
	text := log.String()
	for event, n := range map[string]int{`"event":"account","action":"add_passkey"`: 1, `"event":"account","action":"remove_passkey"`: 1,
		`"event":"sign_in","method":"passkey"`: 2, `"event":"passkey_refused"`: 1, `"event":"second_factor_refused"`: 1, `"event":"refused"`: 0} {
		if got := strings.Count(text, event); got != n {
			t.Errorf("%d records of %s, want %d:\n%s", got, event, n, text)
		}
	}
}

// idToken redeems the code that the browser has just brought to the client "frame",
// and returns what the ID token says.
func (s *site) idToken(t *testing.T) map[string]any {
	t.Helper()
	at, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	a := post(t, s.Server.Issuer+"/token", "frame:"+authservertest.Secret, form("grant_type", "authorization_code", "code", at.Query().Get("code"),
		"redirect_uri", s.party.URL+"/callback", "code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"))
	if a.status != 200 {
		t.Fatalf("%s: %s", at, a.raw)
	}
	return claimsOf(t, a.text("id_token"))
}

// expectProof fails unless the ID token of the code that has just come says how its
// user has signed in.
func (s *site) expectProof(t *testing.T, how, acr string, amr ...string) {
	t.Helper()
	claims := s.idToken(t)
	var got []string
	for _, one := range claims["amr"].([]any) {
		got = append(got, one.(string))
	}
	if claims["acr"] != acr || !slices.Equal(got, amr) {
		t.Errorf("%s: acr %v, amr %v; want %s, %v", how, claims["acr"], got, acr, amr)
	}
}

// discourage has the page ask the authenticator not to verify its user, as somebody
// who holds another's security key and does not know its PIN would.
func (s *site) discourage() {
	browsertest.Evaluate[int](s.Browser, `(() => {
		const form = document.querySelector("form.passkey"), options = JSON.parse(form.dataset.options);
		options.userVerification = "discouraged";
		form.dataset.options = JSON.stringify(options);
		return 0;
	})()`)
}

// addPasskey adds a passkey on the account page, to which it signs in by password.
func (s *site) addPasskey(name string) {
	s.Open(s.Issuer + "/account")
	s.signIn(authservertest.Password, "#devices")
	s.Type("#name", name)
	s.Click("form[data-passkey=create] button", ".codes")
}

// What a passkey proves is what its authenticator answers this time (WebAuthn §6.1,
// flag UV): with its user verified it is two factors and resists phishing, alone or
// after the password. Without, it is a thing that one has: alone it is refused, and
// after the password it makes two factors, which is not enough where the client
// insists on more.
func TestPasskeyUserVerification(t *testing.T) {
	s := newSite(t, nil)
	s.AddAuthenticator(true)
	s.addPasskey("Fingerprint")
	essential := []string{"claims", `{"id_token":{"acr":{"essential":true,"values":["phr"]}}}`}

	s.Forget()
	s.Open(s.authorize("frame", essential...))
	s.Click("form.passkey button", "#arrived")
	s.expectProof(t, "alone, verified", "phr", "pop", "user", "mfa")

	s.Forget()
	s.Open(s.authorize("frame", essential...))
	s.signIn(authservertest.Password, "#code")
	s.Click("form.passkey button", "#arrived")
	s.expectProof(t, "after the password, verified", "phr", "pwd", "pop", "user", "mfa")

	// The credential was verified when it was made; that says nothing of today.
	s.Forget()
	s.Open(s.authorize("frame"))
	s.discourage()
	s.Click("form.passkey button", "#notice")
	s.expect(t, "The passkey was not accepted.")
	s.Open(s.authorize("frame", "prompt", "none"))
	s.Wait("#arrived")
	s.expect(t, "code=false error=login_required")

	s.Open(s.authorize("frame"))
	s.signIn(authservertest.Password, "#code")
	s.discourage()
	s.Click("form.passkey button", "#arrived")
	s.expectProof(t, "after the password, present only", "aal2", "pwd", "pop", "user", "mfa")

	s.Forget()
	s.Open(s.authorize("frame", essential...))
	s.signIn(authservertest.Password, "#code")
	s.discourage()
	s.Click("form.passkey button", "#arrived")
	s.expect(t, "code=false error=unmet_authentication_requirements")
	s.Quiet(t)
}

// A security key without a PIN verifies nobody: it is a second factor and no more,
// and the browser itself does not offer it for a sign-in without a password.
func TestSecurityKeyWithoutPIN(t *testing.T) {
	s := newSite(t, nil)
	s.AddAuthenticator(false)
	s.addPasskey("Plain key")

	s.Forget()
	s.Open(s.authorize("frame", "acr_values", "aal2"))
	s.signIn(authservertest.Password, "#code")
	s.Click("form.passkey button", "#arrived")
	s.expectProof(t, "after the password", "aal2", "pwd", "pop", "user", "mfa")

	s.Forget()
	s.Open(s.authorize("frame"))
	s.Click("form.passkey button", "form.passkey .notice:not([hidden])")
	s.expect(t, "That did not work. Try again, or sign in another way.")

	// acr_values is a wish (OpenID Connect Core §3.1.2.1): the ID token says what came of it.
	s.Forget()
	s.Open(s.authorize("frame", "acr_values", "phr"))
	s.signIn(authservertest.Password, "#code")
	s.Click("form.passkey button", "#arrived")
	s.expectProof(t, "where phr was wished for", "aal2", "pwd", "pop", "user", "mfa")
	s.Quiet(t)
}
