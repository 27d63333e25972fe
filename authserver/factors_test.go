package authserver_test

import (
	"net/netip"
	"testing"

	"authserver/authserver/authservertest"
	"authserver/internal/browsertest"
)

var loopbackOnly = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// A passkey is made on the account page, signs in alone, and is the second step
// after a password. Chromium's virtual authenticator holds it.
func TestPasskeys(t *testing.T) {
	s := newSite(t, nil)
	s.AddAuthenticator()
	s.Open(s.Issuer + "/account")
	s.signIn(authservertest.Password, "#devices")
	s.Type("#name", "My key")
	s.Click("form[data-passkey=create] button", ".codes")
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
}
