package login

import (
	"fmt"
	"net/http"
	"strings"

	"authserver/authserver"
)

// passkeyScript is the script of a page that offers a passkey.
func passkeyScript(passkey *authserver.Passkey) string {
	if passkey == nil {
		return ""
	}
	return "passkey"
}

// SignIn implements authserver.Login.
func (p *Pages) SignIn(w http.ResponseWriter, r *http.Request, page authserver.SignInPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, passkeyScript(page.Passkey), view{T: t, Title: t.SignIn}, signIn(t, page))
}

// SecondFactor implements authserver.Login.
func (p *Pages) SecondFactor(w http.ResponseWriter, r *http.Request, page authserver.SecondFactorPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, passkeyScript(page.Passkey), view{T: t, Title: t.SecondFactor}, secondFactor(t, page))
}

// Consent implements authserver.Login.
func (p *Pages) Consent(w http.ResponseWriter, r *http.Request, page authserver.ConsentPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "", view{T: t, Title: t.Allow}, consent(t, page))
}

// Account implements authserver.Login.
func (p *Pages) Account(w http.ResponseWriter, r *http.Request, page authserver.AccountPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, passkeyScript(page.AddPasskey), view{T: t, Title: t.Account, Wide: true}, account(t, page))
}

// EnrolTOTP implements authserver.Login.
func (p *Pages) EnrolTOTP(w http.ResponseWriter, r *http.Request, page authserver.EnrolTOTPPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "", view{T: t, Title: t.EnrolTOTP}, enrolTOTP(t, page))
}

// RecoveryCodes implements authserver.Login.
func (p *Pages) RecoveryCodes(w http.ResponseWriter, r *http.Request, page authserver.RecoveryCodesPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "", view{T: t, Title: t.RecoveryCodes}, recoveryCodes(t, page))
}

// ConfirmLogout implements authserver.Login.
func (p *Pages) ConfirmLogout(w http.ResponseWriter, r *http.Request, page authserver.ConfirmLogoutPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "", view{T: t, Title: t.SignOut}, confirmLogout(t, page))
}

// SignedOut implements authserver.Login.
func (p *Pages) SignedOut(w http.ResponseWriter, r *http.Request, page authserver.SignedOutPage) {
	t, script := p.language(r, page.Page), ""
	if page.Next != "" {
		script = "follow"
	}
	p.write(w, page.Page, script, view{T: t, Title: t.SignedOut, Refresh: page.Next}, signedOut(t, page))
}

// FormPost implements authserver.Login.
func (p *Pages) FormPost(w http.ResponseWriter, r *http.Request, page authserver.FormPostPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "submit", view{T: t, Title: t.Continue}, formPost(t, page))
}

// Error implements authserver.Login.
func (p *Pages) Error(w http.ResponseWriter, r *http.Request, page authserver.ErrorPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "", view{T: t, Title: t.Errors[page.Kind].Title}, errorPage(t, page))
}

// groups are the characters of a secret in fours, for typing.
func groups(secret string) []string {
	var fours []string
	for rest := secret; rest != ""; {
		n := min(4, len(rest))
		fours, rest = append(fours, rest[:n]), rest[n:]
	}
	return fours
}

// ofPassword reports whether a notice belongs to the form that changes the password.
func ofPassword(n authserver.Notice) bool {
	return n == authserver.NoticePassword || n == authserver.NoticePasswordShort || n == authserver.NoticePasswordMatch
}

// noticeRole is how a screen reader takes a notice.
func noticeRole(done bool) string {
	if done {
		return "status"
	}
	return "alert"
}

// failureText is the text of a notice; a throttled one says how long to wait.
func failureText(t *messages, n authserver.Notice, wait string) string {
	if n == authserver.NoticeThrottled {
		return fmt.Sprintf(t.Notice(n), wait)
	}
	return t.Notice(n)
}

// ids lists those ids for aria-describedby that are on the page.
func ids(first string, hasFirst bool, second string, hasSecond bool) string {
	var list []string
	if hasFirst {
		list = append(list, first)
	}
	if hasSecond {
		list = append(list, second)
	}
	return strings.Join(list, " ")
}
