package login

import (
	"net/http"

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
	p.write(w, page.Page, "sign_in", passkeyScript(page.Passkey), view{T: t, Title: t.SignIn, M: page})
}

// SecondFactor implements authserver.Login.
func (p *Pages) SecondFactor(w http.ResponseWriter, r *http.Request, page authserver.SecondFactorPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "second_factor", passkeyScript(page.Passkey), view{T: t, Title: t.SecondFactor, M: page})
}

// Consent implements authserver.Login.
func (p *Pages) Consent(w http.ResponseWriter, r *http.Request, page authserver.ConsentPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "consent", "", view{T: t, Title: t.Allow, M: page})
}

// Account implements authserver.Login.
func (p *Pages) Account(w http.ResponseWriter, r *http.Request, page authserver.AccountPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "account", passkeyScript(page.AddPasskey), view{T: t, Title: t.Account, Wide: true, M: page})
}

// EnrolTOTP implements authserver.Login.
func (p *Pages) EnrolTOTP(w http.ResponseWriter, r *http.Request, page authserver.EnrolTOTPPage) {
	t := p.language(r, page.Page)
	v := view{T: t, Title: t.EnrolTOTP, M: page}
	for rest := page.Secret; rest != ""; {
		n := min(4, len(rest))
		v.Groups, rest = append(v.Groups, rest[:n]), rest[n:]
	}
	// What is too long for a QR code is typed.
	v.Picture, _ = qrCode(page.URI, t.QRCode)
	p.write(w, page.Page, "enrol_totp", "", v)
}

// RecoveryCodes implements authserver.Login.
func (p *Pages) RecoveryCodes(w http.ResponseWriter, r *http.Request, page authserver.RecoveryCodesPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "recovery_codes", "", view{T: t, Title: t.RecoveryCodes, M: page})
}

// ConfirmLogout implements authserver.Login.
func (p *Pages) ConfirmLogout(w http.ResponseWriter, r *http.Request, page authserver.ConfirmLogoutPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "confirm_logout", "", view{T: t, Title: t.SignOut, M: page})
}

// SignedOut implements authserver.Login.
func (p *Pages) SignedOut(w http.ResponseWriter, r *http.Request, page authserver.SignedOutPage) {
	t, script := p.language(r, page.Page), ""
	if page.Next != "" {
		script = "follow"
	}
	p.write(w, page.Page, "signed_out", script, view{T: t, Title: t.SignedOut, Refresh: page.Next, M: page})
}

// FormPost implements authserver.Login.
func (p *Pages) FormPost(w http.ResponseWriter, r *http.Request, page authserver.FormPostPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "form_post", "submit", view{T: t, Title: t.Continue, M: page})
}

// Error implements authserver.Login.
func (p *Pages) Error(w http.ResponseWriter, r *http.Request, page authserver.ErrorPage) {
	t := p.language(r, page.Page)
	p.write(w, page.Page, "error", "", view{T: t, Title: t.Errors[page.Kind].Title, M: page})
}
