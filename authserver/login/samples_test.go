package login

import (
	"net/http"
	"time"

	"authserver/authserver"
)

// sample is a page with a model that shows all it has.
type sample struct {
	name string
	draw func(p authserver.Login, w http.ResponseWriter, r *http.Request)
}

// samples are all pages, some of them in several states.
func samples() []sample {
	now := time.Now()
	page := authserver.Page{Status: http.StatusOK, Home: "https://auth.example.com/account"}
	form := authserver.Form{Action: "/login", Fields: []authserver.Field{{Name: "interaction", Value: "opaque"}}}
	client := authserver.ClientView{ID: "orders-web", Name: "Corner Shop", Host: "shop.example.com",
		PolicyURI: "https://shop.example.com/privacy", TosURI: "https://shop.example.com/terms"}
	alice := authserver.UserView{Username: "alice", Name: "Alice Liddell"}
	passkey := &authserver.Passkey{Form: form, Options: `{"challenge":"AAAA","rpId":"localhost","allowCredentials":[]}`}
	scopes := []authserver.ScopeView{
		{Name: "openid"}, {Name: "profile", Granted: true},
		{Name: "orders:read", Description: authserver.Text{"en": "see your orders", "de": "deine Bestellungen sehen"}},
		{Name: "orders:write", Description: authserver.Text{"en": "place orders for you", "de": "Bestellungen für dich aufgeben"}},
	}
	var all []sample
	add := func(name string, draw func(authserver.Login, http.ResponseWriter, *http.Request)) {
		all = append(all, sample{name, draw})
	}
	signIn := authserver.SignInPage{Page: page, Form: form, Client: &client, Passkey: passkey}
	add("sign-in", func(p authserver.Login, w http.ResponseWriter, r *http.Request) { p.SignIn(w, r, signIn) })
	add("sign-in-wrong", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := signIn
		m.Status, m.Login, m.Notice = http.StatusUnauthorized, "alice", authserver.NoticeCredentials
		p.SignIn(w, r, m)
	})
	add("sign-in-throttled", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := signIn
		m.Status, m.Login, m.Notice, m.Wait, m.Passkey = http.StatusTooManyRequests, "alice", authserver.NoticeThrottled, 45*time.Second, nil
		p.SignIn(w, r, m)
	})
	add("sign-in-continue", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := signIn
		m.Current, m.Continue = &alice, &form
		p.SignIn(w, r, m)
	})
	add("second-factor", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.SecondFactor(w, r, authserver.SecondFactorPage{Page: page, Form: form, Client: &client, User: alice, TOTP: true, Recovery: true, Passkey: passkey})
	})
	add("second-factor-wrong", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.SecondFactor(w, r, authserver.SecondFactorPage{Page: page, Form: form, Client: &client, User: alice, TOTP: true, Notice: authserver.NoticeCode})
	})
	consent := authserver.ConsentPage{Page: page, Form: form, Client: client, User: alice, Scopes: scopes, Switch: "/login"}
	add("consent", func(p authserver.Login, w http.ResponseWriter, r *http.Request) { p.Consent(w, r, consent) })
	add("consent-unverified", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := consent
		m.Client.Unverified, m.Client.Name, m.Client.Host = true, "WalletAppWithAVeryLongNameThatNeverSeemsToEndAtAll", "com.example.wallet"
		m.Notice, m.Scopes = authserver.NoticeOtherAccount, nil
		p.Consent(w, r, m)
	})
	account := authserver.AccountPage{
		Page: page, User: alice, Notice: authserver.NoticeFactorAdded,
		Sessions: []authserver.SessionView{
			{Browser: "Firefox", System: "Linux", SignedIn: now.Add(-9 * time.Minute), LastSeen: now, Current: true},
			{Browser: "Safari", System: "iPhone", SignedIn: now.Add(-50 * time.Hour), LastSeen: now.Add(-3 * time.Hour), End: form},
			{SignedIn: now.Add(-70 * 24 * time.Hour), LastSeen: now.Add(-40 * 24 * time.Hour), End: form},
		},
		Apps: []authserver.AppView{
			{Client: client, Scopes: scopes, Since: now.Add(-40 * 24 * time.Hour), LastUsed: now.Add(-30 * time.Second), End: form},
			{Client: authserver.ClientView{ID: "reader", Name: "Reader"}, Scopes: scopes[:2], Since: now.Add(-25 * time.Hour), End: form},
		},
		Password: &form, TOTP: &authserver.TOTPView{Since: now.Add(-time.Hour), Remove: form},
		Passkeys:   []authserver.PasskeyView{{Name: "My phone", Since: now.Add(-48 * time.Hour), LastUsed: now.Add(-time.Hour), Remove: form}},
		AddPasskey: passkey, RecoveryCodes: 1, RenewCodes: &form, SignOut: form,
	}
	add("account", func(p authserver.Login, w http.ResponseWriter, r *http.Request) { p.Account(w, r, account) })
	add("account-new", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := account
		m.Notice, m.User = authserver.NoticePassword, authserver.UserView{Username: "alice", Name: "alice"}
		m.Sessions, m.Apps, m.TOTP, m.AddTOTP, m.Passkeys, m.RenewCodes = m.Sessions[:1], nil, nil, &form, nil, nil
		p.Account(w, r, m)
	})
	// Names as long as they can be, and many of everything.
	long := authserver.UserView{Username: "wilhelmina.featherstonehaugh-cholmondeley@international-correspondence.example.com", Name: "Wilhelmina Featherstonehaugh-Cholmondeley"}
	longClient := authserver.ClientView{ID: "long", Name: "Wonderland Teas, Biscuits and Unbirthday Presents by International Mail Order Lt…",
		Host: "a-very-long-hostname-of-an-application.customers.international-correspondence.example.com"}
	add("sign-in-long", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := signIn
		m.Client, m.Current, m.Login, m.Notice = &longClient, &long, long.Username, authserver.NoticeReauthenticate
		p.SignIn(w, r, m)
	})
	add("second-factor-long", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.SecondFactor(w, r, authserver.SecondFactorPage{Page: page, Form: form, User: long, Passkey: passkey, Recovery: true, Notice: authserver.NoticePasskey})
	})
	add("consent-long", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := consent
		m.Client, m.User = longClient, long
		m.Scopes = append(scopes[:len(scopes):len(scopes)], authserver.ScopeView{Name: "https://api.international-correspondence.example.com/auth/letters.readwrite.all"})
		p.Consent(w, r, m)
	})
	add("account-long", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := account
		m.User, m.Notice, m.AddPasskey, m.RecoveryCodes = long, "", nil, 0
		for range 4 {
			m.Sessions = append(m.Sessions, account.Sessions[1:]...)
			m.Apps = append(m.Apps, authserver.AppView{Client: longClient, Scopes: scopes, Since: now.Add(-time.Hour), LastUsed: now, End: form})
			m.Passkeys = append(m.Passkeys, authserver.PasskeyView{Name: "The-security-key-that-hangs-on-the-nail-beside-the-kitchen-door", Since: now.Add(-400 * 24 * time.Hour), Remove: form})
		}
		p.Account(w, r, m)
	})
	enrol := authserver.EnrolTOTPPage{Page: page, Form: form, User: alice, Secret: "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", Notice: authserver.NoticeCode,
		URI: "otpauth://totp/auth.example.com:alice?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=auth.example.com"}
	add("enrol-totp", func(p authserver.Login, w http.ResponseWriter, r *http.Request) { p.EnrolTOTP(w, r, enrol) })
	add("recovery-codes", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.RecoveryCodes(w, r, authserver.RecoveryCodesPage{Page: page, User: alice, Codes: []string{
			"7k3f-9qpx-2mna", "wd5t-4hcy-8rzb", "n6vj-p2ke-m9sf", "3xqh-7wra-tc4d", "b8yz-5fgn-k2jm",
			"q4pd-w7xt-h9vc", "r2ka-8mhs-3nye", "z5jc-6tbf-p7wq", "f9vn-3dgx-y4kr", "m7se-2zhp-c8ta"}})
	})
	add("confirm-logout", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.ConfirmLogout(w, r, authserver.ConfirmLogoutPage{Page: page, Form: form, Client: &client, User: alice})
	})
	add("signed-out", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.SignedOut(w, r, authserver.SignedOutPage{Page: page})
	})
	add("signed-out-next", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := authserver.SignedOutPage{Page: page, Client: &client, Iframes: []string{"https://a.example/logout?sid=1"}, Next: "https://shop.example.com/bye"}
		m.Frames = []string{"https://a.example"}
		p.SignedOut(w, r, m)
	})
	add("form-post", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		m := authserver.FormPostPage{Page: page, Client: client, Action: "https://shop.example.com/callback",
			Fields: []authserver.Field{{Name: "code", Value: "opaque"}, {Name: "state", Value: `"><script>alert(1)</script>`}}}
		m.Targets = []string{"https://shop.example.com"}
		p.FormPost(w, r, m)
	})
	add("error-request", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.Error(w, r, authserver.ErrorPage{Page: page, Kind: authserver.ErrorRequest, Detail: "the redirect_uri is not registered for this client; it is compared byte for byte"})
	})
	for _, kind := range []authserver.ErrorKind{authserver.ErrorCookies, authserver.ErrorForeign, authserver.ErrorDisabled, authserver.ErrorNotFound,
		authserver.ErrorThrottled, authserver.ErrorUnavailable, authserver.ErrorServer} {
		add("error-"+string(kind), func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
			p.Error(w, r, authserver.ErrorPage{Page: page, Kind: kind})
		})
	}
	add("error-done", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.Error(w, r, authserver.ErrorPage{Page: page, Kind: authserver.ErrorDone, Client: &client, Next: "/login?interaction=opaque"})
	})
	add("error-expired", func(p authserver.Login, w http.ResponseWriter, r *http.Request) {
		p.Error(w, r, authserver.ErrorPage{Page: page, Kind: authserver.ErrorExpired, Next: "/login?interaction=opaque"})
	})
	return all
}
