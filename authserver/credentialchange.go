package authserver

import (
	"context"
	"encoding/hex"

	"github.com/go-webauthn/webauthn/protocol"
)

// updateCredentials lets change alter the credentials of a user, and tells receivers
// of security events what has changed; see store.Table.Update: change may run more than
// once. What it refuses with is returned. They are told before the change is stored,
// so that nobody who repeats a call that failed half way finds it made, and tells nobody.
func (s *Server) updateCredentials(ctx context.Context, subject string, change func(*credentials) error) error {
	told := make(map[changedCredential]bool)
	return s.storeCredentials(ctx, subject, func(c *credentials) error {
		before := c.held()
		if err := change(c); err != nil {
			return err
		}
		_, notOperator := adminCaller(ctx)
		for one, is := range changesOf(before, c.held(), notOperator == nil) {
			if told[one] {
				continue
			}
			err := s.tell(ctx, securityEvent{Type: credentialChange, Subject: subject, Reason: is.Credential + "_" + is.Change, credentialEvent: is})
			if err != nil {
				return err
			}
			told[one] = true
		}
		return nil
	})
}

// heldCredential is one thing that a user signs in with, as far as a change of it is
// of interest to others.
type heldCredential struct {
	kind   string // credential_type of CAEP §3.3.1
	proof  string // another one is a change
	aaguid string
	older  bool // there was one in the configuration
}

// changedCredential names a change.
type changedCredential struct{ id, change string }

// held returns the credentials by an identifier of each. Recovery codes have no name
// in CAEP.
func (c *credentials) held() map[string]heldCredential {
	held := make(map[string]heldCredential)
	if c.Password != nil {
		held["password"] = heldCredential{kind: "password", proof: c.Password.Hash, older: c.Password.Replaces != ""}
	}
	if c.TOTP != nil {
		held["totp"] = heldCredential{kind: "app", proof: string(c.TOTP.Secret)}
	}
	for _, one := range c.Passkeys {
		kind := "fido2-roaming"
		if one.Credential.Authenticator.Attachment == protocol.Platform {
			kind = "fido2-platform"
		}
		held["passkey "+one.id()] = heldCredential{kind: kind, aaguid: uuidOf(one.Credential.Authenticator.AAGUID)}
	}
	return held
}

// changesOf says what was created, updated, and deleted by the user or revoked by an
// operator.
func changesOf(before, after map[string]heldCredential, operator bool) map[changedCredential]credentialEvent {
	changes := make(map[changedCredential]credentialEvent)
	add := func(id, change string, is heldCredential) {
		changes[changedCredential{id, change}] = credentialEvent{Credential: is.kind, Change: change, AAGUID: is.aaguid}
	}
	for id, is := range after {
		was, there := before[id]
		switch {
		case !there && !is.older:
			add(id, "create", is)
		case was.proof != is.proof:
			add(id, "update", is)
		}
	}
	for id, was := range before {
		if _, there := after[id]; !there && operator {
			add(id, "revoke", was)
		} else if !there {
			add(id, "delete", was)
		}
	}
	return changes
}

// uuidOf is the text of an AAGUID; empty for none, and for that of authenticators that
// do not say what they are.
func uuidOf(aaguid []byte) string {
	if len(aaguid) != 16 || [16]byte(aaguid) == [16]byte{} {
		return ""
	}
	text := hex.EncodeToString(aaguid)
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}
