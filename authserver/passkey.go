package authserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"authserver/keys"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

// passkey is a WebAuthn credential of a user.
type passkey struct {
	Name       string              `json:"name"` // what he calls it
	Since      int64               `json:"since"`
	LastUsed   int64               `json:"last_used,omitempty"`
	Credential webauthn.Credential `json:"credential"`
}

func (p passkey) id() string { return base64.RawURLEncoding.EncodeToString(p.Credential.ID) }

// passkeys asks browsers for passkeys and judges the answers (WebAuthn Level 3).
// What the server has to remember between the two travels in the form, sealed and
// bound to what the question was asked for.
type passkeys struct {
	party *webauthn.WebAuthn
	box   keys.Box
}

const (
	passkeyWait = 5 * time.Minute // how long a question can be answered
	maxPasskeys = 20              // of one user
)

// newPasskeys returns nil where browsers have no passkeys: an address is no relying
// party (WebAuthn §5.1.2).
func newPasskeys(issuer, name string, box keys.Box) (*passkeys, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil, nil
	}
	limit := webauthn.TimeoutConfig{Enforce: true, Timeout: passkeyWait, TimeoutUVD: passkeyWait}
	party, err := webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: name, RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		Timeouts:              webauthn.TimeoutsConfig{Login: limit, Registration: limit},
	})
	if err != nil {
		return nil, fmt.Errorf("preparing for passkeys: %w", err)
	}
	return &passkeys{party, box}, nil
}

// passkeyOwner is a user as WebAuthn sees him.
type passkeyOwner struct {
	view    UserView
	subject string
	has     []passkey
}

// userHandle is what a passkey says of its owner: nothing to anybody else, and at
// most 64 bytes (WebAuthn §14.6.1).
func userHandle(subject string) []byte {
	hash := sha256.Sum256([]byte("passkey user\x00" + subject))
	return hash[:]
}

// WebAuthnID implements webauthn.User.
func (o *passkeyOwner) WebAuthnID() []byte { return userHandle(o.subject) }

// WebAuthnName implements webauthn.User.
func (o *passkeyOwner) WebAuthnName() string { return o.view.Username }

// WebAuthnDisplayName implements webauthn.User.
func (o *passkeyOwner) WebAuthnDisplayName() string { return o.view.Name }

// WebAuthnCredentials implements webauthn.User.
func (o *passkeyOwner) WebAuthnCredentials() []webauthn.Credential {
	var all []webauthn.Credential
	for _, one := range o.has {
		all = append(all, one.Credential)
	}
	return all
}

const passkeyQuestion = "passkey_question" // the hidden field with what must be remembered

// question makes a form of what the browser is asked and what must be remembered.
func (p *passkeys) question(purpose string, fields Form, options any, asked *webauthn.SessionData) (*Passkey, error) {
	encoded, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("encoding a question for a passkey: %w", err)
	}
	remembered, err := json.Marshal(asked)
	if err != nil {
		return nil, fmt.Errorf("encoding a question for a passkey: %w", err)
	}
	sealed := encodeSealed(p.box.Seal(remembered, []byte(purpose)))
	form := Form{Action: fields.Action, Fields: append(append([]Field{}, fields.Fields...), Field{passkeyQuestion, sealed})}
	return &Passkey{Form: form, Options: string(encoded)}, nil
}

// asked returns what a question remembered, if it was asked for the same purpose.
func (p *passkeys) asked(purpose, sealed string) (webauthn.SessionData, error) {
	var asked webauthn.SessionData
	decoded, err := decodeSealed(sealed)
	if err != nil {
		return asked, err
	}
	remembered, err := p.box.Open(decoded, []byte(purpose))
	if err != nil {
		return asked, err
	}
	if err := json.Unmarshal(remembered, &asked); err != nil {
		return asked, fmt.Errorf("decoding a question for a passkey: %w", err)
	}
	if !time.Now().Before(asked.Expires) {
		return asked, errors.New("the question is too old")
	}
	return asked, nil
}

// ask asks for a passkey of owner, or, when it is nil, for one of anybody who then
// need not type his name: that one must have verified its user, since it stands for
// two factors.
func (p *passkeys) ask(purpose string, fields Form, owner *passkeyOwner) (*Passkey, error) {
	var options *protocol.CredentialAssertion
	var asked *webauthn.SessionData
	var err error
	if owner == nil {
		options, asked, err = p.party.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	} else {
		options, asked, err = p.party.BeginLogin(owner, webauthn.WithUserVerification(protocol.VerificationPreferred))
	}
	if err != nil {
		return nil, fmt.Errorf("asking for a passkey: %w", err)
	}
	return p.question("get\x00"+purpose, fields, options.Response, asked)
}

// offer asks the browser to make a new passkey for owner.
func (p *passkeys) offer(purpose string, fields Form, owner *passkeyOwner) (*Passkey, error) {
	var exclude []protocol.CredentialDescriptor
	for _, one := range owner.has {
		exclude = append(exclude, one.Credential.Descriptor())
	}
	options, asked, err := p.party.BeginRegistration(owner, webauthn.WithExclusions(exclude),
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationPreferred,
		}))
	if err != nil {
		return nil, fmt.Errorf("offering a new passkey: %w", err)
	}
	return p.question("create\x00"+purpose, fields, options.Response, asked)
}

// created judges the browser's answer to offer.
func (p *passkeys) created(purpose string, f form, owner *passkeyOwner) (webauthn.Credential, string, error) {
	asked, err := p.asked("create\x00"+purpose, f.get(passkeyQuestion))
	if err != nil {
		return webauthn.Credential{}, "", err
	}
	answer, err := protocol.ParseCredentialCreationResponseBytes([]byte(f.get("passkey")))
	if err != nil {
		return webauthn.Credential{}, "", err
	}
	made, err := p.party.CreateCredential(owner, asked, answer)
	if err != nil {
		return webauthn.Credential{}, "", err
	}
	made.Attestation = webauthn.CredentialAttestation{} // none was asked for, and it is large
	return *made, asked.Challenge, nil
}

// shown judges the browser's answer to ask. find returns the owner of a user handle.
// The caller spends the challenge of what it returns.
func (p *passkeys) shown(purpose string, f form, owner *passkeyOwner, find func(handle []byte) (*passkeyOwner, error)) (*shownPasskey, error) {
	asked, err := p.asked("get\x00"+purpose, f.get(passkeyQuestion))
	if err != nil {
		return nil, err
	}
	answer, err := protocol.ParseCredentialRequestResponseBytes([]byte(f.get("passkey")))
	if err != nil {
		return nil, err
	}
	var used *webauthn.Credential
	if owner != nil {
		used, err = p.party.ValidateLogin(owner, asked, answer)
	} else {
		_, used, err = p.party.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
			owner, err = find(handle)
			return owner, err
		}, asked, answer)
	}
	switch {
	case err != nil:
		return nil, err
	case used.Authenticator.CloneWarning: // WebAuthn §7.2 step 22
		return nil, errors.New("the passkey's counter went back: it may have been copied")
	}
	return &shownPasskey{owner, used, asked.Challenge, answer.Response.AuthenticatorData.Flags.HasUserVerified()}, nil
}

// shownPasskey is a passkey that was used to sign in.
type shownPasskey struct {
	owner      *passkeyOwner
	credential *webauthn.Credential // as it is now, with its counter
	challenge  string
	// userVerified is of this answer: the flag of the credential is that of its
	// registration, and a thief may use the passkey without its PIN.
	userVerified bool
}

// sameCredential reports whether a passkey is the credential.
func (p passkey) sameCredential(c *webauthn.Credential) bool {
	return bytes.Equal(p.Credential.ID, c.ID)
}
