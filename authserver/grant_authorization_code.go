package authserver

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"authserver/keys"
	"authserver/store"
)

// authorizationCodeGrant exchanges a code (OAuth 2.1 §4.1.3). Everything is checked
// before the code is spent, so a code in the wrong hands is refused and stays good
// for its owner: guessing at 256 bits of verifier gains nothing.
type authorizationCodeGrant struct{ server *Server }

func (g authorizationCodeGrant) Authorize(ctx context.Context, request tokenRequest) (Authorization, error) {
	s, c, f := g.server, request.client, request.form
	raw := f.get("code")
	if raw == "" {
		return Authorization{}, invalidRequest("code is missing")
	}
	redeemed, err := s.openCode(raw)
	if err != nil {
		return Authorization{}, invalidGrant("the code is not valid: it was cut, altered, or is not from here").because(err)
	}
	if redeemed.ClientID != c.id { // OAuth 2.1 §4.1.3, ATTACKS AC-05
		return Authorization{}, invalidGrant("the code was issued to another client")
	}
	if time.Now().UnixMilli() >= redeemed.Expires {
		if off := clocksAgree(ctx, s.store); off != nil {
			return Authorization{}, unavailable(off)
		}
		return Authorization{}, invalidGrant("the code has expired")
	}
	if err := redeemed.checkRedirectURI(f.get("redirect_uri")); err != nil {
		return Authorization{}, err
	}
	if err := redeemed.checkVerifier(f.get("code_verifier")); err != nil {
		return Authorization{}, err
	}
	allowed := slices.DeleteFunc(slices.Clone(redeemed.Scope), func(one string) bool { return !slices.Contains(c.scopes, one) })
	// scope is no parameter of this request: what the user allowed is what there is.
	resource, scope, err := s.resources.target(form{url.Values{"resource": f.all("resource")}}, allowed, redeemed.Resources)
	if err != nil {
		return Authorization{}, err
	}
	grant := redeemed.grant(c, allowed)
	if len(grant.Resources) == 0 {
		grant.Resources = s.resources.ownersOf(allowed, resource)
	}
	before, err := s.presumed(ctx, c.id, grant.Subject)
	if err != nil { // ATTACKS AZ-31: nor is it spent for somebody who is gone
		return Authorization{}, err
	}
	if before.epoch.endsCode(redeemed) {
		return Authorization{}, errGrantEnded.because(errors.New("all of the client was ended since"))
	}
	if err := g.server.ready(c, resource, scope); err != nil { // nor for tokens that there are no keys for
		return Authorization{}, err
	}
	if s.sessionTimes.KeepOfflineAccess && slices.Contains(allowed, "offline_access") {
		grant.SessionID = "" // it outlives the session, so it is not of it
	}
	spent, err := s.spent.Creation(redeemed.ID, struct{}{}, redeemed.replayable())
	if err != nil {
		return Authorization{}, err
	}
	authorization, err := s.createGrant(ctx, c, redeemed.GrantID, grant, resource,
		basis{standing: before, given: time.UnixMilli(redeemed.Issued), session: redeemed.SessionID, spends: []store.Creation{spent}})
	if exists := (*store.ExistsError)(nil); errors.As(err, &exists) && exists.Key == spent.Key {
		return Authorization{}, g.replayed(ctx, request, redeemed)
	}
	if err != nil {
		return Authorization{}, err
	}
	authorization.Scope, authorization.Nonce = scope, redeemed.Nonce
	authorization.unsent = func(ctx context.Context) error { return g.unspend(ctx, redeemed) }
	return authorization, nil
}

// unspend undoes an exchange of which nothing was sent. A replay in between has left
// its mark, so that what the code becomes afterwards is dead.
func (g authorizationCodeGrant) unspend(ctx context.Context, redeemed code) error {
	if err := errors.Join(g.server.grants.Delete(ctx, redeemed.GrantID), g.server.spent.Delete(ctx, redeemed.ID)); err != nil {
		return fmt.Errorf("giving a code back: %w", err)
	}
	return nil
}

// ready returns an error when the tokens of a grant cannot be signed now.
func (s *Server) ready(c *client, resource string, scope []string) error {
	rings := []string{s.resources.algorithmFor(resource)}
	if c.may("refresh_token") {
		rings = append(rings, keys.RefreshRing)
	}
	if slices.Contains(scope, "openid") {
		rings = append(rings, s.idTokenAlgorithm(c))
	}
	for _, ring := range rings {
		if err := s.keys.Ready(ring); err != nil {
			return unavailable(fmt.Errorf("signing: %w", err))
		}
	}
	return nil
}

// replayable is until when it is known that the code was used.
func (c code) replayable() time.Time { return time.UnixMilli(c.Expires).Add(markKept) }

// replayed answers whoever is not the first. He has presented what only the client
// knows, and so has somebody else: what the code became ends (OAuth 2.1 §4.1.3,
// RFC 9700 §4.5).
func (g authorizationCodeGrant) replayed(ctx context.Context, request tokenRequest, redeemed code) error {
	s := g.server
	s.metrics.replays.Inc()
	refused := invalidGrant("the code was used before; what it was exchanged for has ended for safety")
	refused.cause, refused.trace = recorded{errors.New("replay")}, newTrace()
	s.log.Warn("authorization code used twice: the grant ends", "event", "code_replay", "trace_id", refused.trace, "grant_id", redeemed.GrantID,
		"client_id", redeemed.ClientID, "sub", redeemed.Subject, "address", request.address.String())
	ctx, cancel := withoutCaller(ctx, endWithin)
	defer cancel()
	// The mark first: whoever is just making the grant sees it, or the grant is there to be ended.
	err := s.store.Create(ctx, endedGrantKey(redeemed.GrantID), nil, redeemed.replayable())
	if err != nil && !errors.Is(err, store.ErrExists) {
		return unavailable(fmt.Errorf("ending the grant of a code: %w", err))
	}
	if err := s.endGrant(ctx, redeemed.GrantID, reasonReplay); err != nil {
		return unavailable(err)
	}
	return refused
}

// endedGrantKey is the key of the mark that a grant is not to be, if it is just
// being made.
func endedGrantKey(grantID string) string { return "replayed/" + grantID }

// grant returns the grant that the code becomes.
func (c code) grant(to *client, scope []string) Grant {
	return Grant{
		ClientID: to.id, Subject: c.Subject, Scope: strings.Join(scope, " "), Resources: c.Resources, AuthTime: c.AuthTime,
		ACR: c.ACR, AMR: c.AMR, SessionID: c.SessionID,
		IDTokenClaims: c.IDTokenClaims, UserInfoClaims: c.UserInfoClaims,
	}
}

// checkRedirectURI compares with what the authorization request named, as OAuth 2.0
// has it (RFC 6749 §4.1.3). OAuth 2.1 has dropped the parameter, since PKCE does
// more; so it may be left out, but where PKCE was not used.
func (c code) checkRedirectURI(presented string) error {
	switch {
	case presented == "" && (c.Challenge != "" || !c.RedirectSent):
	case presented == "":
		return invalidRequest("redirect_uri is missing: without PKCE it must be repeated here")
	case presented != c.RedirectURI:
		return invalidGrant("the redirect_uri is not that of the authorization request")
	}
	return nil
}

// checkVerifier is RFC 7636 §4.6 with S256.
func (c code) checkVerifier(verifier string) error {
	switch {
	case c.Challenge == "" && verifier == "":
		return nil
	case c.Challenge == "": // RFC 9700 §4.8.2: somebody took the challenge out
		return invalidRequest("code_verifier is given, but the authorization request had no code_challenge")
	case verifier == "":
		return invalidGrant("code_verifier is missing")
	case len(verifier) < 43 || len(verifier) > 128 || strings.ContainsFunc(verifier, notUnreserved):
		return invalidGrant("code_verifier is not 43 to 128 characters of A-Z a-z 0-9 - . _ ~")
	}
	hash := sha256.Sum256([]byte(verifier))
	if subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(hash[:])), []byte(c.Challenge)) != 1 {
		return invalidGrant("code_verifier does not fit the code_challenge of the authorization request")
	}
	return nil
}

// notUnreserved is RFC 3986 §2.3.
func notUnreserved(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~", r))
}
